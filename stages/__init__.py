"""The stages of the pipeline, each a process of its own: ``python -m stages.train``.

What is set here must hold before NumPy and torch are loaded, so it comes before a stage's own imports.
"""

from cclnet.system.errors import errors_in_one_line
from cclnet.system.interruption import end_at_once_while_loading, end_with_dvc

end_at_once_while_loading()
end_with_dvc()
with errors_in_one_line("params"):
    from cclnet.params import Params
    from cclnet.system.machine import prepare_processor

    PARAMS = Params.load()
    prepare_processor(PARAMS.block.processor, PARAMS.block.threads)
    PARAMS.check_backbone()
