"""A server of bundles over HTTP: three APIs and a page where a picture forms. Extra `serve`; docs/server.md.

From the outside in:

running.py     a socket, the application, the signals that end it
options.py     what a server was asked for
protocol.py    connections of clients that take their time
guard.py       who may ask what
app.py         the application: routes behind the guard
openai_api.py  /v1/images/generations, /v1/models
a1111_api.py   /sdapi/v1
native_api.py  /v1/scales, /v1/jobs, /v1/capabilities
openapi.py     the document of all routes
page.py        the page's files, in static/
service.py     what routes share: bundles, queue, figures
schema.py      JSON bodies against their schemas
answers.py     JSON, refusals, streams of events
catalogue.py   the bundles, and what may be asked of them
jobs.py        a picture that was asked for, and its events
encoding.py    picture files: PNG, JPEG, WebP
metrics.py     figures for Prometheus
pool.py        the queue and the workers
worker.py      a process that draws
"""
