from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare(run: str) -> str:
    """Claims the round (or takes up an unfinished one), fixes its models and data; returns the round's number."""
    from sparring.steps.entry import execute

    return execute("prepare", run, "")
