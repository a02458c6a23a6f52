"""Which parts of a model learn in context: what demonstrations change on the way to the answer.

    trajectories       the answer by depth, with and without demonstrations
    heads              induction heads found and switched off: what is lost with them
    anchors            attention among demonstrations, read and blocked
    task_vectors       demonstrations as one state, put into bare queries
    function_vectors   the heads that carry a task, summed
    influence          what every single demonstration is worth

Labels are told apart by their first tokens here: `labkit.icl.told_apart` keeps those that can be.
"""
