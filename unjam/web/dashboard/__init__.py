"""The operators' dashboard on 9181: pages, their live stream, and the actions behind a token.

``routes`` is the door; ``views`` gather what a page shows, from one ``board`` a second; ``render``
turns it into HTML; ``actions`` change things, by the same functions as the operators' API.
"""
