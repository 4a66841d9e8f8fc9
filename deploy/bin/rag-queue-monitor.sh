#!/bin/sh
exec unjam recover "$@"
