"""What `cvresearch doctor` finds: a verdict, and in one line what was found, what is expected, what to do."""

OK, WARNING, WRONG = 'ok', 'warning', 'WRONG'
Verdict = tuple[str, str]
