"""
A Parquet dataset of any size
=============================

It is read by pyarrow a batch at a time. ``fit_batches`` reads the rows several times: it takes what can be
iterated over again and again.
"""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from sklearn.datasets import load_wine

from sksoftmax import SoftmaxClassifier


class ParquetBatches:
    """The rows of the files of a folder; ``target`` names the column of the labels."""

    def __init__(self, folder, target, batch_size=50_000):
        self.dataset = ds.dataset(folder, format="parquet")
        self.target, self.batch_size = target, batch_size
        self.names = [name for name in self.dataset.schema.names if name != target]

    def __iter__(self):
        for batch in self.dataset.to_batches(batch_size=self.batch_size):
            X = np.column_stack([batch.column(name).to_numpy() for name in self.names])
            yield X, batch.column(self.target).to_numpy()


with tempfile.TemporaryDirectory() as folder:
    # for the example: a small set, in three files
    wine = load_wine(as_frame=True)
    for i in range(3):
        pq.write_table(pa.Table.from_pandas(wine.frame[i::3]), Path(folder) / f"part-{i}.parquet")

    clf = SoftmaxClassifier(alpha=1e-3, random_state=0)
    clf.fit_batches(ParquetBatches(folder, target="target"))
    print(f"accuracy {clf.score(wine.data.to_numpy(), wine.target):.3f}, {clf.stop_reason_}")
