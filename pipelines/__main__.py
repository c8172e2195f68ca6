"""`python -m pipelines run|compile|submit|schedule|unschedule|list|wait`: rounds here and on a cluster."""

from pipelines.commands import app

if __name__ == "__main__":
    app()
