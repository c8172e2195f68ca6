"""`python -m pipelines run|compile`: plays a round here, or writes the pipeline for a cluster."""

from pipelines.commands import app

if __name__ == "__main__":
    app()
