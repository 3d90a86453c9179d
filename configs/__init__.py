"""One flat file per experiment. A config file is code: run only those you trust."""
