"""What executes a version.

ONNX Runtime's wheels report sessions to their maker unless told not to, and read that as they are imported. A gateway
tells nobody but its operators what it serves.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
