from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def judge(run: str, round: str) -> str:
    """Fills the verdict tables."""
    from sparring.steps.entry import execute

    return execute("judge", run, round)
