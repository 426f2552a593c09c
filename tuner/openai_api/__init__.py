"""An exported agent behind an API that clients of OpenAI's speak; apart from `serving`, which starts models' servers.

wire.py     a request read and checked, replies and errors in OpenAI's shapes
metrics.py  what Prometheus is told
energy.py   joules of the queries under way
app.py      the routes: who may ask, how many at once, for how long
server.py   the socket, and what signals mean
"""
