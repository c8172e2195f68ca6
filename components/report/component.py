from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def report(run: str, numbers: dsl.Output[dsl.Metrics], page: dsl.Output[dsl.HTML], round: str = "") -> str:
    """Writes the round's page and delivers hooks, also after a failure. Without a number: the round last begun."""
    from sparring.integrations.after_round import report_and_deliver
    from sparring.steps.entry import publish

    key = report_and_deliver(run, round)
    numbers.metadata.update(publish(run, key, page.path))
    return key
