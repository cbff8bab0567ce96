"""
Text: the words of each class
=============================

A pipeline from texts to classes, and what it has learned. scikit-learn comes with no texts, but with its own
documentation: here each public name's docstring is a text, and the module that it is from its class. What is
printed depends on the scikit-learn that is installed.
"""

# %%
# The names themselves are taken out, or they would give the module away.

import importlib
import re

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline

from sksoftmax import SoftmaxClassifier

MODULES = ["cluster", "datasets", "decomposition", "ensemble", "linear_model", "metrics", "preprocessing", "svm"]

texts, labels = [], []
for module_name in MODULES:
    module = importlib.import_module(f"sklearn.{module_name}")
    for name in module.__all__:
        text = getattr(module, name).__doc__ or ""
        texts.append(re.sub(rf"\b({name}|{module_name}|sklearn)\b", " ", text))
        labels.append(module_name)
print(f"{len(texts)} texts of {len(MODULES)} classes")

# %%
# Cross-validated accuracy, and that of a guess, always the largest class.

vectorizer = TfidfVectorizer(token_pattern=r"\b[a-z]{3,}\b", stop_words="english", min_df=3, sublinear_tf=True)
pipeline = make_pipeline(vectorizer, SoftmaxClassifier(alpha=1e-4, random_state=0))
print(f"accuracy {cross_val_score(pipeline, texts, labels).mean():.2f}")
print(f"a guess  {max(labels.count(label) for label in MODULES) / len(labels):.2f}")

# %%
# The words that speak most for each class.

pipeline.fit(texts, labels)
words, model = pipeline[0].get_feature_names_out(), pipeline[-1]
fig, axes = plt.subplots(2, 4, figsize=(11, 5.5), layout="constrained", sharex=True)
for label, coef, ax in zip(model.classes_, model.coef_, axes.ravel(), strict=True):
    best = np.argsort(coef)[-8:]
    ax.barh(words[best], coef[best], color="#0072B2")
    ax.set_title(label)
for ax in axes[-1]:
    ax.set_xlabel("coefficient")
plt.show()

# %%
# ``l1_ratio`` leaves exact zeros: fewer words for much the same prediction.

sparse = make_pipeline(vectorizer, SoftmaxClassifier(alpha=1e-3, l1_ratio=0.8, random_state=0))
print(f"accuracy {cross_val_score(sparse, texts, labels).mean():.2f}")
coef = sparse.fit(texts, labels)[-1].coef_
print(
    f"{np.mean(coef != 0):.1%} of the coefficients are not 0; {np.mean((coef != 0).any(axis=0)):.0%} of the words count"
)

# %%
# Texts that the model is least sure of, each predicted by a model that has not seen it.

proba = cross_val_predict(pipeline, texts, labels, method="predict_proba")
for i in proba.max(axis=1).argsort()[:3]:
    said = ", ".join(f"{model.classes_[k]} {proba[i, k]:.2f}" for k in proba[i].argsort()[::-1][:2])
    first = " ".join(texts[i].split())[:60]
    print(f"{labels[i]}: {first!r} -> {said}")
