"""
Text files, hashed as they are read
===================================

No vocabulary, and no text, is ever in memory as a whole.
"""

import random
import tempfile
from pathlib import Path

from sklearn.feature_extraction.text import HashingVectorizer

from sksoftmax import SoftmaxClassifier

vectorizer = HashingVectorizer(n_features=2**18)

LANGUAGES = {
    "english": "the of and to in that it is was for on are with as his they be at one have this from",
    "french": "le de un et en que il est pour qui dans ce pas sur plus par je avec tout faire son mettre",
    "german": "der die und in den von zu das mit sich des auf ist im dem nicht ein eine als auch es an",
}


class TextFiles:
    """Lines of the files of a folder; a line's label is the name of its file."""

    def __init__(self, folder, batch_size=1000):
        self.paths, self.batch_size = sorted(Path(folder).glob("*.txt")), batch_size

    def __iter__(self):
        for path in self.paths:
            with path.open(encoding="utf-8") as file:
                while lines := [line for _, line in zip(range(self.batch_size), file, strict=False)]:
                    yield vectorizer.transform(lines), [path.stem] * len(lines)


with tempfile.TemporaryDirectory() as folder:
    # for the example: lines of frequent words
    draw = random.Random(0)
    for language, words in LANGUAGES.items():
        lines = [" ".join(draw.choices(words.split(), k=6)) for _ in range(2500)]
        (Path(folder) / f"{language}.txt").write_text("\n".join(lines), encoding="utf-8")

    clf = SoftmaxClassifier(alpha=1e-5, random_state=0).fit_batches(TextFiles(folder))  # sorted by class: no matter
    print(clf.predict(vectorizer.transform(["it was one of the", "une de plus dans le", "das ist nicht so"])))
