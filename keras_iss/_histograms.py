"""Histograms for TensorBoard."""


class Histograms:
    """Writes histograms for TensorBoard, without TensorFlow."""

    def __init__(self, log_dir):
        try:
            from tensorboard.plugins.histogram import summary_v2
            from tensorboard.summary.writer import event_file_writer
        except ImportError as error:
            raise ImportError(
                "`ISSLogger(log_dir=...)` writes for TensorBoard, which is "
                "not installed: `pip install tensorboard`."
            ) from error
        self._histogram = summary_v2.histogram_pb
        self._writer = event_file_writer.EventFileWriter(str(log_dir))

    def write(self, tag, values, step):
        from tensorboard.compat.proto import event_pb2

        self._writer.add_event(
            event_pb2.Event(summary=self._histogram(tag, values), step=step)
        )

    def flush(self):
        self._writer.flush()
