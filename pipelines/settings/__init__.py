"""Settings of a workspace (``dsmoe.yaml``) and of the machine (environment variables).

No other package reads them. All models are frozen and forbid unknown names; a failed validation lists every
wrong setting in one message.
"""
