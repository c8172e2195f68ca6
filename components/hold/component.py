from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def hold(run: str, round: str) -> str:
    """Records why the champion stays."""
    from sparring.steps.entry import execute

    return execute("hold", run, round)
