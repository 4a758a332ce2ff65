#!/bin/sh
# A worker for treewarden: counts the lines of one file after the other. POSIX shell alone knows no
# JSON. But a request is one line without a blank between its keys, and they come in a fixed order:
# what is looked for here is always found. A name with a character that JSON escapes is refused.

answer() {
    printf '{"id":%s,"outcome":"%s"%s}\n' "$id" "$1" "${2:+,$2}"
}

while IFS= read -r line; do
    id=${line#\{\"*\":}
    id=${id%%[,\}]*}
    case $line in
    '{"ping":'*)
        printf '{"pong":%s}\n' "$id"
        continue
        ;;
    esac
    path=${line#*'"path":"'}
    path=${path%%'"'*}
    case $path in
    *\\*)
        answer reject '"error":"a name that is beyond a shell"'
        continue
        ;;
    esac
    if lines=$(wc -l <"$path"); then
        answer success "\"result\":{\"lines\":$((lines))}"
    else
        answer retry '"error":"cannot be read"'
    fi
done
