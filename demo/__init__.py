"""Real models to try the gateway with: trained here, from data that scikit-learn ships, in seconds.

`python -m demo DIR` writes a model repository: DIR/<model>/model.yaml and DIR/<model>/<version>/ with model.onnx,
golden.npz (rows and the answers that are right for them), reference.npz (a sample of the inputs it was trained on) and
profile.json (their distributions, and those of the answers).
Arrays are named `input:<name>` and `output:<name>`; strings are NumPy unicode, so that no reader needs pickle.
"""
