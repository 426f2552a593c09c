"""`tuner up`: a queue of studies over the servers that a team has, behind an HTTP API.

`spec` is its file, `tables` and `book` what it keeps, `admission` what may be submitted, `log` what is heard of a study,
`engine` what runs it, `limits` what ends it, `verifying` claims measured again, `metrics` and `app` what is answered, `client`
who asks.
"""
