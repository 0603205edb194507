"""reWOO: tools are for a plan, which the client carries out; the model calls none of them.

It belongs to the shipped template of that name, not to models, so it is in no registry.
"""

from dataclasses import replace

from server.chat.dialects import generic

DIALECT = replace(generic.DIALECT, name="rewoo", own_prompt=False, plans=True)
