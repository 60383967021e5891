# shellcheck shell=bash
# The bash client of busd: functions to source, bash 5.0 or later; nc (OpenBSD) for Unix sockets, socat for TLS.
#
#   . busd.sh
#   busd_open                                   # $BUSD_ADDRESS, else 127.0.0.1:7379; or host:port, tls:host:port, /path
#   busd_pub news.eu "hello"                    # prints the offset
#   tail -F log | busd_pub_lines logs.app       # a message a line, pipelined
#   busd_read 'news.>' LAST 1 -- show           # what is there
#   busd_sub 'news.>' FROM 1 -- show            # calls: show kind topic offset payload
#   busd_work mail 'jobs.>' TRIES 5 -- send     # a member of group mail: what send does with 0 is done
#   busd_close
#
# Every function returns 0 done, 1 time is over (as busd sub means it), 2 an error (its text is on stderr), 3 done but
# messages were missed (GAP).
#
# Invariants:
# 1. Every answer is read and checked, in order.  When one does not come the connection is closed, so that no later
#    command can take it for its own.
# 2. A payload arrives as it was given, or not at all; only NUL cannot be in a variable of bash.
# 3. busd_sub and busd_read have a connection of their own, so a callback may publish on the one of busd_open.
# 4. Nothing is left in the shell but names that begin with busd_, _busd_ or BUSD_, and a trap for PIPE when there was
#    none: without it bash would be killed by writing to a server that is gone.  IFS may be anything, and is left alone:
#    callbacks see that of the caller.
# 5. The token in $BUSD_TOKEN is on no command line, and in no message.

# Seconds to wait for an answer.  A commit on a bad day takes one or two; a server that needs more is not well.
: "${BUSD_TIMEOUT:=30}"
# Where the last busd_sub or busd_read got to: FROM "$BUSD_NEXT" goes on there.
BUSD_NEXT=
# Lines sent and not yet answered, at most: a few KiB of answers, which no socket is too small for.
_busd_window=256
_busd_in=
_busd_out=
_busd_address=

# busd_open [address]: connect, and see that it is busd.
busd_open() {
  [[ -z $_busd_in ]] || busd_close
  _busd_address=${1:-${BUSD_ADDRESS:-127.0.0.1:7379}}
  [[ -n $(trap -p PIPE) ]] || trap : PIPE
  _busd_connect _busd_in _busd_out || return
  _busd_greet "$_busd_in" "$_busd_out" || { _busd_drop; return 2; }
  if ! _busd_send "$_busd_out" PING || ! _busd_answer || [[ $_busd_reply != PONG ]]; then
    _busd_drop
    _busd_fail "$_busd_address is not busd: PING was not answered by PONG"
  fi
}

# busd_close: say QUIT, so that the server has read everything sent before.
busd_close() {
  [[ -n $_busd_in ]] || return 0
  local _busd_status=0
  { _busd_send "$_busd_out" QUIT && _busd_answer; } || _busd_status=2
  _busd_drop
  return "$_busd_status"
}

# busd_pub topic payload: publish, print the offset.
busd_pub() {
  local _busd_line
  (($# == 2)) || { _busd_fail 'usage: busd_pub topic payload'; return; }
  _busd_encode "$1" "$2" || return
  _busd_ready && _busd_send "$_busd_out" "$_busd_line" && _busd_answer && printf '%s\n' "${_busd_reply#:}"
}

# busd_pub_lines topic: publish each line of stdin, print the last offset.  A line goes out as soon as no other is there to
# be read.  A refused line is named on stderr and the others go on; the status is then 2.
busd_pub_lines() {
  local _busd_line _busd_payload _busd_batch='' _busd_status=0
  local -i _busd_count=0 _busd_answered=0 _busd_last=0
  (($# == 1)) || { _busd_fail 'usage: busd_pub_lines topic'; return; }
  _busd_ready || return
  while IFS= read -r _busd_payload || [[ -n $_busd_payload ]]; do
    _busd_encode "$1" "$_busd_payload" || return
    _busd_batch+=$_busd_line$'\n'
    _busd_count+=1
    # read -t 0 asks whether something can be read, and reads nothing.
    if ((_busd_count % _busd_window)) && read -r -t 0; then continue; fi
    _busd_send "$_busd_out" "${_busd_batch%$'\n'}" || return
    _busd_batch=''
    _busd_collect || return
  done
  if [[ -n $_busd_batch ]]; then
    _busd_send "$_busd_out" "${_busd_batch%$'\n'}" && _busd_collect || return
  fi
  ((_busd_last == 0)) || printf '%s\n' "$_busd_last"
  return "$_busd_status"
}

# busd_sub pattern [options] [-- callback [its first arguments]]: the options are those of SUB, without FORMAT.
# The callback gets kind, topic, offset, payload: MSG and the payload as it was published; ESC and the escaped payload
# when it holds NUL (printf %b "$4" | program gets it whole); EOF and RESET; GAP, pattern, from, "to count reason".
# Without a callback the lines are printed as they come.  A callback that fails ends the subscription; its status is
# returned.
busd_sub() {
  _busd_stream SUB "$@"
}

# busd_read pattern [options] [-- callback …]: what is there now, then done; otherwise like busd_sub.
busd_read() {
  _busd_stream READ "$@"
}

# busd_work group pattern [options] [-- callback …]: a member of a group; options as WAIT, TRIES, LIMIT, FROM.
# The callback is called as by busd_sub, with the token (17, or 17.2 the second time) for the offset.  0: the message is
# done.  75: not now, it comes again later.  Anything else: the same, with the reason "exit N", and told on stderr.
# One at a time, unless WINDOW says otherwise; what takes longer than WAIT (30s) goes to another member as well.
# Without a callback the lines are printed, and that is all there is to do.
busd_work() {
  [[ ${1-} && $1 != *[!A-Za-z0-9_-]* && ${2-} && ${2-} != -- ]] ||
    { _busd_fail 'usage: busd_work group pattern [options] [-- callback …]'; return; }
  _busd_stream WORK "$@"
}

# busd_command word …: any command with one answer (EOF, RESET, TOPICS, INFO, HELP, …); prints the answer.
busd_command() {
  local -i _busd_lines
  local _busd_verb=${1-} _busd_line
  case ${_busd_verb^^} in
    '' | SUB | READ | QUIET | QUIT) _busd_fail 'busd_command takes a command with one answer; see busd_sub, busd_read'; return ;;
  esac
  _busd_join "$@"
  [[ $_busd_line != *$'\n'* ]] || { _busd_fail 'a command is one line'; return; }
  _busd_ready && _busd_send "$_busd_out" "$_busd_line" && _busd_answer || return
  if [[ $_busd_reply != '*'* ]]; then
    printf '%s\n' "${_busd_reply#:}"
    return
  fi
  for ((_busd_lines = ${_busd_reply#\*}; _busd_lines > 0; _busd_lines--)); do
    _busd_line_of_answer && printf '%s\n' "$_busd_reply" || return
  done
}

# --- From here on for this file only ---

_busd_fail() {
  printf 'busd: %s\n' "$1" >&2
  return 2
}

# Sets _busd_line to the words, with a blank between them whatever the caller's IFS is.
_busd_join() {
  local IFS=' '
  _busd_line=$*
}

# Sets the variables named $1 and $2 to the descriptors to read from and write to.
_busd_connect() {
  local _busd_path _busd_host _busd_port _busd_from _busd_to _busd_trust
  if [[ $_busd_address == tls:* ]]; then
    command -v socat >/dev/null || { _busd_fail 'TLS needs socat'; return; }
    # What else there may be means something to socat.
    [[ ${BUSD_CAFILE-}${BUSD_CERT-} != *[!A-Za-z0-9_./@+-]* && ${_busd_address#tls:} != *[!A-Za-z0-9_.:\[\]-]* ]] ||
      { _busd_fail 'for TLS only A-Z a-z 0-9 and _ . / @ + - may be in the address, BUSD_CAFILE and BUSD_CERT'; return; }
    _busd_trust=capath=/etc/ssl/certs
    [[ -z ${BUSD_CAFILE-} ]] || _busd_trust=cafile=$BUSD_CAFILE
    [[ -z ${BUSD_CERT-} ]] || _busd_trust+=,cert=$BUSD_CERT
    _busd_beside socat -t 1 - "OPENSSL:${_busd_address#tls:},$_busd_trust,verify=1" || return
  elif [[ $_busd_address == unix:* || $_busd_address == */* ]]; then
    _busd_path=${_busd_address#unix:}
    [[ -S $_busd_path ]] || { _busd_fail "no socket at $_busd_path"; return; }
    command -v nc >/dev/null || { _busd_fail 'a Unix socket needs nc (netcat-openbsd)'; return; }
    _busd_beside nc -U -N -- "$_busd_path" || return
  else
    _busd_host=${_busd_address%:*} _busd_port=${_busd_address##*:}
    _busd_host=${_busd_host#[} _busd_host=${_busd_host%]}
    { exec {_busd_from}<>"/dev/tcp/${_busd_host:-127.0.0.1}/$_busd_port"; } 2>/dev/null ||
      { _busd_fail "cannot connect to $_busd_address"; return; }
    _busd_to=$_busd_from
  fi
  printf -v "$1" %s "$_busd_from"
  printf -v "$2" %s "$_busd_to"
}

# Starts a program that is the connection; sets _busd_from and _busd_to.
_busd_beside() {
  local _busd_stderr _busd_first _busd_second
  # bash warns of a second coprocess though both work: our copies of the descriptors are all we use.
  { coproc _BUSD_BESIDE { exec "$@" 2>&"$_busd_stderr"; }; } {_busd_stderr}>&2 2>/dev/null
  exec {_busd_stderr}>&-
  _busd_first=${_BUSD_BESIDE[0]-} _busd_second=${_BUSD_BESIDE[1]-}
  { exec {_busd_from}<&"$_busd_first" {_busd_to}>&"$_busd_second"; } 2>/dev/null ||
    { _busd_fail "cannot connect to $_busd_address"; return; }
  exec {_busd_first}<&- {_busd_second}>&-
}

# Says who we are on the descriptors $1 (to read) and $2, when there is a token.
_busd_greet() {
  local LC_ALL=C _busd_said
  [[ ${BUSD_TOKEN-} ]] || return 0
  [[ $BUSD_TOKEN != *[![:graph:]]* ]] || { _busd_fail 'BUSD_TOKEN is not a token: it holds a blank or a line end'; return; }
  _busd_send "$2" "AUTH $BUSD_TOKEN" || return
  IFS= read -r -t "$BUSD_TIMEOUT" -u "$1" _busd_said || { _busd_fail "no answer from $_busd_address"; return; }
  [[ $_busd_said == +OK ]] || _busd_fail "${_busd_said#-}"
}

_busd_drop() {
  [[ -z $_busd_in ]] || _busd_shut "$_busd_in" "$_busd_out"
  _busd_in='' _busd_out=''
}

_busd_shut() {
  local _busd_one=$1 _busd_other=$2
  exec {_busd_one}<&-
  [[ $1 == "$2" ]] || exec {_busd_other}>&-
}

_busd_ready() {
  [[ -n $_busd_in ]] || _busd_fail 'not connected; call busd_open'
}

# Sends the line (or lines) $2 and a line end to descriptor $1.
_busd_send() {
  # A subshell starts with no traps, and is ours to set one in.
  ((BASH_SUBSHELL == 0)) || trap : PIPE
  { printf '%s\n' "$2" >&"$1"; } 2>/dev/null && return
  [[ $1 != "$_busd_out" ]] || _busd_drop
  _busd_fail "the connection to $_busd_address is gone; whether the last command was carried out is not known"
}

# Reads a line of an answer into _busd_reply.
_busd_line_of_answer() {
  local LC_ALL=C
  IFS= read -r -t "$BUSD_TIMEOUT" -u "$_busd_in" _busd_reply && return
  if (($? > 128)); then
    _busd_drop
    printf 'busd: no answer within %s s; whether the last command was carried out is not known\n' "$BUSD_TIMEOUT" >&2
    return 1
  fi
  _busd_drop
  _busd_fail "the connection to $_busd_address ended; whether the last command was carried out is not known"
}

_busd_answer() {
  _busd_line_of_answer || return
  [[ $_busd_reply != -* ]] || _busd_fail "${_busd_reply#-}"
}

# Sets _busd_line to the command that publishes payload $2 to topic $1.
_busd_encode() {
  local LC_ALL=C _busd_text=$2
  # A blank or a line end in a topic would make another command of this one.
  [[ $1 && $1 != *[!A-Za-z0-9_.-]* ]] || { _busd_fail "'$1' is not a topic"; return; }
  if [[ $_busd_text == *[$'\n\r']* ]]; then
    _busd_text=${_busd_text//\\/\\\\}
    _busd_text=${_busd_text//$'\n'/\\n}
    _busd_text=${_busd_text//$'\r'/\\r}
    _busd_line="EPUB $1 $_busd_text"
  else
    _busd_line="PUB $1 $_busd_text"
  fi
}

# Reads the answers owed to busd_pub_lines.
_busd_collect() {
  while ((_busd_answered < _busd_count)); do
    if ! _busd_line_of_answer; then
      _busd_fail "lines $((_busd_answered + 1)) to $_busd_count were sent and not answered"
      return
    fi
    _busd_answered+=1
    case $_busd_reply in
      :*) _busd_last=${_busd_reply#:} ;;
      *) _busd_status=2; _busd_fail "line $_busd_answered: ${_busd_reply#-}" || : ;;
    esac
  done
}

_busd_print() {
  printf '%s\n' "$1${2:+ $2}${3:+ $3}${4:+ $4}"
}

# _busd_stream SUB|READ pattern [options] [-- callback …], or WORK group pattern …: a SUB that acknowledges
_busd_stream() {
  local -a _busd_words=() _busd_call=()
  # Never that of a busd_work around this one.
  local _busd_group=
  if [[ $1 == WORK ]]; then
    _busd_group=$2
    set -- SUB "$3" GROUP "$2" "${@:4}"
  fi
  local _busd_line _busd_from_fd _busd_to_fd _busd_kind _busd_topic _busd_offset _busd_payload _busd_status=0
  while (($#)) && [[ $1 != -- ]]; do _busd_words+=("$1"); shift; done
  _busd_call=("${@:2}")
  _busd_join "${_busd_words[@]}"
  case ${_busd_line^^} in
    *$'\n'*) _busd_fail 'a command is one line'; return ;;
    *' FORMAT '*) _busd_fail 'FORMAT is for other clients: nc, socat, busd sub'; return ;;
  esac
  ((${#_busd_words[@]} > 1)) || { _busd_fail "usage: busd_${_busd_words[0],,} pattern [options] [-- callback …]"; return; }
  [[ -n $_busd_address ]] || _busd_address=${BUSD_ADDRESS:-127.0.0.1:7379}
  [[ -n $(trap -p PIPE) ]] || trap : PIPE
  _busd_connect _busd_from_fd _busd_to_fd || return
  { _busd_greet "$_busd_from_fd" "$_busd_to_fd" && _busd_send "$_busd_to_fd" "$_busd_line"; } || { _busd_shut "$_busd_from_fd" "$_busd_to_fd"; return 2; }
  _busd_events || _busd_status=$?
  _busd_shut "$_busd_from_fd" "$_busd_to_fd"
  return "$_busd_status"
}

# Reads events until there are no more; uses the variables of _busd_stream.
_busd_events() {
  local -i _busd_missed=0 _busd_found=0
  # A payload that begins or ends with a blank comes as ESC, so read takes nothing away.
  while LC_ALL=C IFS=' ' read -r -u "$_busd_from_fd" _busd_kind _busd_topic _busd_offset _busd_payload; do
    case $_busd_kind in
      MSG) BUSD_NEXT=$((${_busd_offset%.*} + 1)); _busd_found=1 ;;
      ESC) BUSD_NEXT=$((${_busd_offset%.*} + 1)); _busd_found=1; ((${#_busd_call[@]} == 0)) || _busd_decode ;;
      EOF | RESET) BUSD_NEXT=$((_busd_offset + 1)) ;;
      GAP)
        # With several stores, messages of others that lie within it come behind it.
        if [[ $_busd_payload == *" slow" ]]; then BUSD_NEXT=$((${_busd_payload%% *} + 1))
        elif ((${BUSD_NEXT:-0} < _busd_offset)); then BUSD_NEXT=$_busd_offset
        fi
        _busd_missed=1 ;;
      +OK) [[ -z $_busd_topic ]] || BUSD_NEXT=${_busd_topic#next=}; continue ;;
      :*) continue ;;
      -STALE) _busd_fail "too late: ${_busd_offset#first=} was given to another meanwhile" || continue ;;
      END) BUSD_NEXT=${_busd_offset#next=}; _busd_end; return ;;
      -*) _busd_fail "${_busd_kind#-} $_busd_topic $_busd_offset $_busd_payload"; return ;;
    esac
    if [[ $_busd_group && $_busd_kind == [ME]S[GC] ]]; then
      _busd_job || return
      continue
    fi
    "${_busd_call[@]:-_busd_print}" "$_busd_kind" "$_busd_topic" "$_busd_offset" "$_busd_payload" || return
  done
  _busd_fail "the connection to $_busd_address ended; FROM ${BUSD_NEXT:-first} goes on"
}

# Has one message of a group worked on, and says what became of it; uses the variables of _busd_events.
_busd_job() {
  local _busd_result=0
  "${_busd_call[@]:-_busd_print}" "$_busd_kind" "$_busd_topic" "$_busd_offset" "$_busd_payload" || _busd_result=$?
  if ((_busd_result == 0)); then
    _busd_send "$_busd_to_fd" "ACK $_busd_offset"
    return
  fi
  # EX_TEMPFAIL of sysexits.h is no news.
  ((_busd_result == 75)) || _busd_fail "$_busd_topic $_busd_offset: exit $_busd_result, given back" || :
  _busd_send "$_busd_to_fd" "NACK $_busd_offset exit $_busd_result"
}

# The status that fits an END.
_busd_end() {
  local _busd_options=" ${_busd_line^^} "
  case $_busd_topic in
    end | limit) ;;
    time)
      # Without a number or a place to reach, the time was simply how long to listen.
      if [[ $_busd_options == *' LIMIT '* || $_busd_options == *' UNTIL '* ]] || ((!_busd_found && !_busd_missed)); then
        return 1
      fi ;;
    denied) _busd_fail 'the users of the server were changed, and this may not be read any more'; return ;;
    *) _busd_fail "the server ended the subscription: $_busd_topic; FROM $BUSD_NEXT goes on"; return ;;
  esac
  ((_busd_missed == 0)) || return 3
}

# Turns an ESC event into a MSG, unless it holds NUL: bash would drop it without a word.
_busd_decode() {
  local _busd_rest=${_busd_payload//\\\\/}
  [[ $_busd_rest != *'\0000'* ]] || return 0
  printf -v _busd_payload %b "$_busd_payload"
  _busd_kind=MSG
}
