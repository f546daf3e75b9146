"""All stars of a survey, however many: the lab's own steps on chunks of stars, by Dask, on one machine or on many."""

try:
    from labtools.batch.made import ModelSurvey
    from labtools.batch.run import Report, label_survey
except ImportError as fault:
    raise ImportError(f"{fault}: labtools.batch needs more packages, pip install 'labtools[survey]'") from fault

__all__ = ["ModelSurvey", "Report", "label_survey"]
