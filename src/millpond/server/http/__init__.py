"""The HTTP wire of a serving worker: the Open Inference Protocol on bare asyncio protocols; see `serve`."""
