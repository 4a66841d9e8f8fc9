#!/bin/sh
exec unjam capacity --csv "$@"
