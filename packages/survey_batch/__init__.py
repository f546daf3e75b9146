"""How is all of DR17 labelled? The lab's own steps on chunks of stars, by Dask, on one machine or
on many."""

try:
    from survey_batch.model_survey import ModelSurvey
    from survey_batch.run import Report, label_survey, local_client
except ImportError as fault:
    raise ImportError(
        f"{fault}: survey_batch needs more packages, pip install -e '.[batch]' in the lab's folder"
    ) from fault

__all__ = ["ModelSurvey", "Report", "label_survey", "local_client"]
