/** The completion script for bash, 3.2 and later, without the bash-completion package. */
import { type CommandPlaces, ROOT_FLAGS } from "./completion.ts";
import { block, placeGroups, quoted } from "./completions_script.ts";

const words = (texts: readonly string[]) => `'${texts.join(" ")}'`;

/** The script: tables, then one function that reads the line and asks them. It starts no process but those of `compgen`. */
export function bashScript(commands: readonly CommandPlaces[]): string {
  const flags = block(commands, ({ name, flags, arguments: places, endless }) => {
    const valued = flags.filter(({ place }) => place).map(({ text }) => text);
    const many = flags.flatMap((flag) => flag.many ? [flag.text] : []);
    const again = many.length > 0 ? `\n      many=' ${many.join(" ")} '` : "";
    const shorts = flags.flatMap(({ short, text }) => short ? [`${short.slice(1)}=${text}`] : []);
    return `    ${name})\n      flags=${words(flags.map(({ text }) => text))}\n` +
      `      valued=' ${valued.join(" ")} '\n      shorts=' ${shorts.join(" ")} '${again}${
        endless ? `\n      most=${places.length - 1}` : ""
      } ;;`;
  });
  const values = block(placeGroups(commands), ({ keys, place }) => {
    const sets = [
      place.values.length > 0 ? `choices=${words(place.values.map(({ text }) => text))}` : "",
      place.list ? "list=1" : "",
      place.files ? `files=${words(place.files.length > 0 ? place.files : ["any"])}` : "",
    ];
    return `    ${keys.map(quoted).join(" | ")})\n      ${sets.filter((set) => set !== "").join(" ")} ;;`;
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
  local IFS=$' \\t\\n'
  local flags='' valued='' shorts='' many='' most='' choices='' list='' files=''
  COMPREPLY=()
${READ}
  if ((last == 0)); then
    case $cur in
      -*) choices=${words(ROOT_FLAGS.map(({ text }) => text))} ;;
      *) choices=${words(commands.map(({ name }) => name))} ;;
    esac
    _performer_offer "$cur"
    return
  fi
${PLACE}}

complete -F _performer performer
`;
}

const HEAD = `# Completion of performer for bash; "performer completions bash" prints it.
#
# In ~/.bashrc:                    source <(performer completions bash)
# or, starting faster, once:       performer completions bash > ~/.performer.bash
#   and in ~/.bashrc:              source ~/.performer.bash
# For another name of it, alias p=performer:   complete -F _performer p
`;

const OFFER = `
# What fits the typed part $1 of a word that begins with $2.
_performer_offer() {
  local typed=$1 kept=\${2-} taken='' choice entry end cut=''
  if [[ $list && $typed == *,* ]]; then
    taken=,\${typed%,*},
    kept+=\${typed%,*},
    typed=\${typed##*,}
    files=''
  fi
  for choice in $choices; do
    if [[ $choice == "$typed"* && $taken != *",$choice,"* ]]; then COMPREPLY+=("$kept$choice"); fi
  done
  if [[ $list ]]; then compopt -o nospace 2> /dev/null; fi
  if [[ $files ]]; then
    compopt -o filenames 2> /dev/null
    typed=\${typed#[\\"\\']}
    typed=\${typed//\\\\/}
    while IFS= read -r entry; do COMPREPLY+=("$kept$entry"); done < <(compgen -d -- "$typed")
    while IFS= read -r entry; do
      for end in $files; do
        if [[ $end == any || $entry == *"$end" ]]; then COMPREPLY+=("$kept$entry") && break; fi
      done
    done < <(compgen -f -- "$typed")
  fi
  # Readline replaces what stands after the last of these only.
  if [[ $COMP_WORDBREAKS == *=* && $cur == *=* ]]; then cut=\${cur%"\${cur##*=}"}; fi
  if [[ $COMP_WORDBREAKS == *:* && $cur == *:* ]]; then
    entry=\${cur%"\${cur##*:}"}
    if ((\${#entry} > \${#cut})); then cut=$entry; fi
  fi
  if [[ $cut ]] && ((\${#COMPREPLY[@]} > 0)); then COMPREPLY=("\${COMPREPLY[@]#"$cut"}"); fi
}
`;

const READ = `
  # Bash cuts words at "=" and ":"; here they are whole again.
  local words=() part joined='' i
  for ((i = 1; i <= COMP_CWORD; i++)); do
    part=\${COMP_WORDS[i]}
    if ((\${#words[@]} > 0)) && [[ $part == [=:]* || ( $joined && $part ) ]]; then
      words[\${#words[@]} - 1]+=$part
    else
      words+=("$part")
    fi
    joined=''
    if [[ $part == *[=:] ]]; then joined=1; fi
  done
  local last=$((\${#words[@]} - 1))
  local cur=\${words[last]} command=\${words[0]}
`;

const PLACE = `  _performer_flags "$command" || return 0

  local open='' ended='' given=' ' place=0 word flag
  for ((i = 1; i < last; i++)); do
    word=\${words[i]}
    if [[ $open ]]; then
      open=''
    elif [[ $ended || $word != -?* ]]; then
      place=$((place + 1))
    elif [[ $word == -- ]]; then
      ended=1
    elif [[ $word == --* ]]; then
      flag=\${word%%=*}
      [[ $many == *" $flag "* ]] || given+="$flag "
      if [[ $word != *=* && $valued == *" $flag "* ]]; then open=$flag; fi
    else
      while [[ \${word:1} ]]; do
        flag=\${shorts#* \${word:1:1}=}
        if [[ $flag == "$shorts" ]]; then break; fi
        flag=\${flag%% *}
        [[ $many == *" $flag "* ]] || given+="$flag "
        if [[ $valued == *" $flag "* ]]; then
          if [[ ! \${word:2} ]]; then open=$flag; fi
          break
        fi
        word=-\${word:2}
      done
    fi
  done

  if [[ $most ]] && ((place > most)); then place=$most; fi

  if [[ $open ]]; then
    _performer_values "$command $open"
    _performer_offer "$cur"
    return
  fi
  if [[ ! $ended && $cur == --*=* ]]; then
    _performer_values "$command \${cur%%=*}"
    _performer_offer "\${cur#*=}" "\${cur%%=*}="
    return
  fi
  if [[ $ended || $cur != -* ]]; then _performer_values "$command $place"; fi
  if [[ ! $ended && ($cur == -* || ! $cur$choices$files) ]]; then
    for flag in $flags; do
      if [[ $given != *" $flag "* ]]; then choices+=" $flag"; fi
    done
  fi
  _performer_offer "$cur"
`;
