"""The archive client: SDSS's catalogue and files over HTTP, and MIST's web form."""
