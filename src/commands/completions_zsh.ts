/** The completion script for zsh: to be sourced, or a file `_performer` in a folder of $fpath. */
import { type Candidate, type CommandPlaces, ROOT_FLAGS } from "./completion.ts";
import { block, brief, placeGroups, quoted } from "./completions_script.ts";

/** "text:summary" as `_describe` takes it. */
const described = ({ text, summary }: Candidate) => {
  return quoted(text.replaceAll(":", "\\:") + (summary === "" ? "" : `:${brief(summary)}`));
};

/** The script: tables, then one function that reads the line and asks them. It starts no process. */
export function zshScript(commands: readonly CommandPlaces[]): string {
  const flags = block(commands, ({ name, flags, arguments: places, endless }) => {
    const valued = flags.flatMap(({ text, place }) => {
      return place ? [`      ${text} ${quoted(`${place.name}: ${brief(place.summary)}`)}\n`] : [];
    });
    const many = flags.flatMap((flag) => flag.many ? [flag.text] : []);
    const again = many.length > 0 ? `\n      many=(${many.join(" ")})` : "";
    const shorts = flags.flatMap(({ short, text }) => short ? [`${short.slice(1)} ${text}`] : []);
    return `    ${name})\n      flags=(\n${block(flags, (flag) => `        ${described(flag)}`)}      )\n` +
      `      valued=(\n${valued.join("").replaceAll(/^/gm, "  ").trimEnd()}\n      )\n      shorts=(${
        shorts.join(" ")
      })${again}${endless ? `\n      most=${places.length - 1}` : ""} ;;`;
  });
  const values = block(placeGroups(commands), ({ keys, place }) => {
    const list = place.values.length > 0
      ? `values=(\n${block(place.values, (v) => `        ${described(v)}`)}      )`
      : "";
    const ends = place.files?.map((end) => end.replace(/^\./, "")).join("|");
    const files = place.files ? `files=${quoted(ends ? `(#i)*.(${ends})(-.)` : "*(-.)")}` : "";
    const sets = [list, place.list ? "list=1" : "", files].filter((set) => set !== "");
    return `    ${keys.map((key) => `(${quoted(key)})`).join("|")})\n      ${sets.join(" ")} ;;`.replaceAll(
      /\)\|\(/g,
      "|",
    );
  });
  return `${HEAD}
_performer_flags() {
  case $1 in
${flags}    *) return 1 ;;
  esac
}

_performer_values() {
  case $1 in
${values}  esac
}
${OFFER}
_performer() {
  local -a flags values suffix many
  local -A valued shorts
  local files='' list='' most='' name='argument'
  if ((CURRENT == 2)); then
    if [[ $PREFIX == -* ]]; then
      flags=(${ROOT_FLAGS.map(described).join(" ")})
      _describe -o -t flags flag flags
    else
      values=(
${block(commands, ({ name, summary }) => `        ${described({ text: name, summary })}`)}      )
      _describe -t commands command values
    fi
    return
  fi
${PLACE}}

if [[ $funcstack[1] == _performer ]]; then
  _performer "$@"
elif ((\${+functions[compdef]})); then
  compdef _performer performer
else
  print -u2 'performer: run compinit before its completions: autoload -Uz compinit && compinit'
fi
`;
}

const HEAD = `#compdef performer
# Completion of performer for zsh; "performer completions zsh" prints it.
#
# In ~/.zshrc, after compinit:     source <(performer completions zsh)
# or, starting faster, once:       performer completions zsh > ~/.zfunc/_performer
#   and in ~/.zshrc, before compinit:   fpath=(~/.zfunc $fpath)
# Aliases of it are completed too.
`;

const OFFER = `
# What fits here, by values, list and files.
_performer_offer() {
  local -a left taken
  local value
  integer found=1
  if [[ $list ]]; then
    if [[ $PREFIX == *,* ]]; then
      taken=(\${(s:,:)PREFIX%,*})
      files=''
      compset -P '*,'
    fi
    for value in $values; do
      ((\${taken[(Ie)\${\${value//\\\\:/ }%%:*}]})) || left+=($value)
    done
    values=($left)
    suffix=(-qS ,)
  fi
  if ((#values)); then _describe -t values "$name" values $suffix && found=0; fi
  if [[ $files ]]; then
    _path_files -g "$files" && found=0
    _path_files -/ && found=0
  elif ((!#values)); then
    _message -e values "$name"
  fi
  return found
}
`;

const PLACE = `  local -a before=("\${(@Q)words[2,CURRENT-1]}") left
  local -A given
  local command=$before[1] open='' ended='' word flag
  integer place=0
  _performer_flags $command || return 1
  for word in "\${(@)before[2,-1]}"; do
    if [[ $open ]]; then
      open=''
    elif [[ $ended || $word != -?* ]]; then
      ((place += 1))
    elif [[ $word == -- ]]; then
      ended=1
    elif [[ $word == --* ]]; then
      flag=\${word%%=*}
      given[$flag]=1
      if [[ $word != *=* && $valued[$flag] ]]; then open=$flag; fi
    else
      while [[ $word == -?* ]]; do
        flag=$shorts[$word[2]]
        [[ $flag ]] || break
        given[$flag]=1
        if [[ $valued[$flag] ]]; then
          if [[ $word == -? ]]; then open=$flag; fi
          break
        fi
        word=-\${word[3,-1]}
      done
    fi
  done

  if [[ $most ]] && ((place > most)); then place=$most; fi

  if [[ $open ]]; then
    name=$valued[$open]
    _performer_values "$command $open"
    _performer_offer
    return
  fi
  if [[ ! $ended && $PREFIX == --*=* ]]; then
    flag=\${PREFIX%%=*}
    [[ $valued[$flag] ]] || return 1
    name=$valued[$flag]
    compset -P 1 '*='
    _performer_values "$command $flag"
    _performer_offer
    return
  fi
  if [[ $ended || $PREFIX != -* ]]; then
    _performer_values "$command $place"
    if [[ $ended || $PREFIX || $files ]] || ((#values)); then
      _performer_offer
      return
    fi
  fi
  for flag in $many; do unset "given[$flag]"; done
  for flag in $flags; do
    [[ $given[\${flag%%:*}] ]] || left+=($flag)
  done
  _describe -o -t flags flag left
`;
