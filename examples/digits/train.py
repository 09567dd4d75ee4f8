# SPDX-License-Identifier: Apache-2.0
"""Train a small classifier on scikit-learn's bundled digit scans and export it: digits.onnx, and samples.npz to prove it with."""

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
train, held_out, train_labels, held_out_labels = train_test_split(images, labels, test_size=0.33, random_state=7)
network = MLPClassifier((64,), max_iter=600, random_state=1).fit(train, train_labels)
model = to_onnx(network, train[:1], options={"zipmap": False}, target_opset={"": 21, "ai.onnx.ml": 1})
with open("digits.onnx", "wb") as file:  # noqa: PTH123 - as short as an example should be
    file.write(model.SerializeToString())
np.savez("samples.npz", X=held_out[:16])
print(f"accuracy on {len(held_out)} held-out scans: {network.score(held_out, held_out_labels):.3f}")
