"""Drives a server with QEMU's own QMP client, as said by a list of steps: drive.py SOCKET STEPS

A step is {"execute": NAME, "arguments": {...}}, or {"until": WHAT}: an event, or the status of a JOB_STATUS_CHANGE.
Prints {"answers": [...], "events": [...]}, each in the order in which they came.
"""

import asyncio
import json
import sys

from qemu.qmp import ExecuteError, QMPClient

PATIENCE = 30


async def answer_of(qmp, step):
    try:
        return {"return": await qmp.execute(step["execute"], step.get("arguments"))}
    except ExecuteError as error:
        return {"error": {"class": error.error_class, "desc": str(error)}}


async def drive(socket, steps):
    qmp = QMPClient("downfold")
    await qmp.connect(socket)
    answers, told = [], []
    with qmp.listener() as events:
        for step in steps:
            if "execute" in step:
                answers.append(await answer_of(qmp, step))
                continue
            while True:
                try:
                    event = await asyncio.wait_for(events.get(), PATIENCE)
                except asyncio.TimeoutError:
                    sys.exit(f"waits for {step['until']}: {answers} {told}")
                told.append({"event": event["event"], "data": event["data"]})
                if step["until"] in (event["event"], event["data"].get("status")):
                    break
    await qmp.disconnect()
    return {"answers": answers, "events": told}


print(json.dumps(asyncio.run(drive(sys.argv[1], json.loads(sys.argv[2])))))
