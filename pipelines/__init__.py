"""The round as a Kubeflow pipeline, and the commands that run or compile it: `python -m pipelines run|compile`."""
