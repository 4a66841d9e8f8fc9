#!/bin/sh
exec unjam status "$@"
