# SPDX-License-Identifier: Apache-2.0
# Tells `lamadist build --engine oe` how a build goes on: a JSON object a line, appended to the file
# that LAMA_EVENTS names. Without it nothing is written. crates/lama-oe/src/events.rs reads it.

LAMA_EVENTS ?= ""

# Never part of a task's signature.
LAMA_EVENTS[vardepvalue] = ""
BB_BASEHASH_IGNORE_VARS:append = " LAMA_EVENTS"

addhandler lamadist_events
lamadist_events[eventmask] = " \
    bb.build.TaskFailed \
    bb.event.BuildCompleted \
    bb.event.NoProvider \
    bb.event.ParseCompleted \
    bb.event.ParseProgress \
    bb.event.ParseStarted \
    bb.event.BuildStarted \
    bb.runqueue.runQueueTaskCompleted \
    bb.runqueue.runQueueTaskFailed \
    bb.runqueue.runQueueTaskSkipped \
    bb.runqueue.runQueueTaskStarted \
    bb.runqueue.sceneQueueTaskCompleted \
    bb.runqueue.sceneQueueTaskStarted \
"
python lamadist_events() {
    import json
    import os

    path = e.data.getVar('LAMA_EVENTS')
    if not path:
        return
    name = type(e).__name__
    line = {'event': name}
    if name == 'ParseStarted':
        line['total'] = e.total
    elif name == 'ParseProgress':
        line['current'], line['total'] = e.current, e.total
    elif name == 'ParseCompleted':
        line['errors'], line['total'] = e.errors, e.total
    elif name.startswith(('runQueueTask', 'sceneQueueTask')):
        line['recipe'] = os.path.basename(e.taskfile).split('_')[0].removesuffix('.bb')
        line['task'] = e.taskname
        stats = e.stats
        line['done'] = stats.completed + stats.failed + stats.skipped
        line['total'] = stats.total
    elif name == 'TaskFailed':
        line['recipe'], line['task'] = e.pn, e._task
        line['log'] = e.logfile or ''
    elif name == 'NoProvider':
        line['recipe'] = e._item
        line['why'] = str(e)
    elif name == 'BuildCompleted':
        line['failures'] = e._failures
    # One write: workers append to the same file.
    data = (json.dumps(line) + '\n').encode()
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
}
