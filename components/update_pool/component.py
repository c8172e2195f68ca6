from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def update_pool(run: str, round: str) -> str:
    """Adds the round's games to the replay pool."""
    from sparring.steps.entry import execute

    return execute("update_pool", run, round)
