"""The round as a Kubeflow pipeline, and the commands that run it here or on a cluster: `python -m pipelines`."""
