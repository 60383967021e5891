#!/usr/bin/env bash
# A session with busd: every command is shown, then run.  `make demo` runs this; it needs nothing but bash and busd.
set -euo pipefail

exec 2>&1
TIMEFORMAT='(%R s)'
place=$(mktemp -d)
server=
finish() {
  [[ -z $server ]] || { kill "$server" && wait "$server"; } 2>/dev/null || :
  rm -rf "$place"
}
trap finish EXIT
cd "$place"

say() { printf '\n# %s\n' "$*"; }
show() {
  printf '$ %s\n' "$1"
  eval "$1"
}
start() {
  printf '$ busd serve --tcp 127.0.0.1:%s --data data &\n' "${port:-0}"
  # Emptied here and not by the child, or the last start's line would be found first.
  : >server.log
  busd serve --tcp "127.0.0.1:${port:-0}" --data data 2>>server.log &
  server=$!
  for _ in {1..1000}; do
    if grep -q ' ready, ' server.log || ! kill -0 "$server" 2>/dev/null; then break; fi
    sleep 0.02
  done
  cat server.log
  port=$(sed -n 's/.*ready, tcp 127.0.0.1:\([0-9]*\).*/\1/p' server.log)
  [[ $port ]] || exit 1
}

say 'A broker. Port 0 takes a free one.'
start
show "export BUSD_ADDRESS=127.0.0.1:$port"

say 'Publish and read.'
show "busd pub news.eu --message 'hello world' --offset"
show "printf 'one\ntwo\nthree\n' | busd pub news.us"
show "busd read 'news.>' --format line"

say 'A live reader that begins with the last message of each topic.'
show "busd sub 'news.*' --last 1 --limit 3 --format offset > heard.txt &"
reader=$!
show "busd pub news.asia --message 'a new topic joins'"
show "wait $reader && cat heard.txt"

say 'The same by hand: the protocol is lines, so any program that opens a socket will do.'
show "exec 3<>/dev/tcp/127.0.0.1/$port"
show "printf 'PUB news.eu by hand\nREAD news.eu\nQUIT\n' >&3"
show 'cat <&3; exec 3>&-'

say 'A pipe into a topic and out of it.'
show 'time seq 200000 | busd pub numbers'
show 'time busd sub numbers --from first --until end | tail -n 1'

say 'A crash. What was answered is on the disk.'
printf '$ kill -9 %s\n' "$server"
kill -9 "$server"
wait "$server" 2>/dev/null || :
start
show 'busd topics'
show "busd read 'news.>' --last 1 --format time"

say 'That was all; the README goes on from here.'
