/** The completion script for fish. */
import { type Candidate, type CommandPlaces, ROOT_FLAGS } from "./completion.ts";
import { block, brief, placeGroups } from "./completions_script.ts";

/** Text as fish takes it, whatever it holds. */
const quoted = (text: string) => {
  return /^[\w./+=,-]+$/.test(text) ? text : `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
};

/** A value, a tab and what it is. */
const described = ({ text, summary }: Candidate) => {
  return quoted(text) + (summary === "" ? "" : `\\t${quoted(brief(summary))}`);
};

/** The script: tables, then one function that reads the line and asks them. It starts no process. */
export function fishScript(commands: readonly CommandPlaces[]): string {
  const flags = block(commands, ({ name, flags, arguments: places, endless }) => {
    const lines = flags.map(({ text, short, summary, place, many }) => {
      return `            ${text} ${short?.slice(1) ?? "''"} ${place ? many ? "values" : "value" : "switch"} ${
        quoted(brief(summary))
      }`;
    });
    return `        case ${name}\n            set flags \\\n${lines.join(" \\\n").replaceAll(/^/gm, "    ")}${
      endless ? `\n            set most ${places.length - 1}` : ""
    }`;
  });
  const values = block(placeGroups(commands), ({ keys, place }) => {
    const sets = [
      place.values.length > 0 ? `set values ${place.values.map(described).join(" \\\n                ")}` : "",
      place.list ? "set list 1" : "",
      place.files ? `set files ${place.files.length > 0 ? place.files.join(" ") : "any"}` : "",
    ];
    return [`        case ${keys.map(quoted).join(" ")}`, ...sets.filter((set) => set !== "")].join("\n            ");
  });
  return `${HEAD}
function __performer_flags --no-scope-shadowing
    switch $argv[1]
${flags}    end
end

function __performer_values --no-scope-shadowing
    switch "$argv[1]"
${values}    end
end
${OFFER}
function __performer_complete
    set -l words (commandline -opc)[2..]
    set -l cur (commandline -ct)
    set -l flags
    set -l values
    set -l list
    set -l files
    set -l most
    if not set -q words[1]
        if string match -q -- '-*' $cur
            printf '%s\\n' ${ROOT_FLAGS.map(described).join(" ")}
        else
            printf '%s\\n' ${
    commands.map(({ name, summary }) => described({ text: name, summary })).join(" \\\n                ")
  }
        end
        return
    end
${PLACE}end

complete -c performer -e
complete -c performer -f -a '(__performer_complete)'
`;
}

const HEAD = `# Completion of performer for fish; "performer completions fish" prints it.
#
# Once:   performer completions fish > ~/.config/fish/completions/performer.fish
# Aliases of it are completed too.
`;

const OFFER = `
# What fits the typed part $argv[1] of a word that begins with $argv[2], by values, list and files.
function __performer_offer --no-scope-shadowing
    set -l typed $argv[1]
    set -l kept $argv[2]
    set -l taken
    if test -n "$list"; and string match -q -- '*,*' $typed
        set taken (string split , -- $typed)[1..-2]
        set kept $kept(string join , -- $taken),
        set files
    end
    for value in $values
        contains -- (string split -m 1 \\t -- $value)[1] $taken; or echo -- $kept$value
    end
    if set -q files[1]
        for entry in (complete -C "__performer_nothing $typed")
            set entry (string split -m 1 \\t -- $entry)[1]
            for end in $files /
                if test $end = any; or string match -q -i -- "*$end" $entry
                    echo -- $kept$entry
                    break
                end
            end
        end
    end
end
`;

const PLACE = `    __performer_flags $words[1]
    set -q flags[1]; or return

    set -l open
    set -l ended
    set -l given
    set -l place 0
    for word in $words[2..]
        if test -n "$open"
            set open
        else if test -n "$ended"; or not string match -q -- '-?*' $word
            set place (math $place + 1)
        else if test $word = --
            set ended 1
        else if string match -q -- '--*' $word
            set -l flag (string split -m 1 = -- $word)[1]
            set -a given $flag
            set -l at (contains -i -- $flag $flags); or continue
            if test $flag = $word; and string match -q -- 'value*' $flags[(math $at + 2)]
                set open $flag
            end
        else
            set -l letters (string split '' -- (string sub -s 2 -- $word))
            for i in (seq (count $letters))
                set -l at (contains -i -- $letters[$i] $flags); or break
                set -a given $flags[(math $at - 1)]
                if string match -q -- 'value*' $flags[(math $at + 1)]
                    test $i -eq (count $letters); and set open $flags[(math $at - 1)]
                    break
                end
            end
        end
    end

    if test -n "$most"; and test $place -gt "$most"
        set place $most
    end

    if test -n "$open"
        __performer_values "$words[1] $open"
        __performer_offer $cur ''
        return
    end
    if test -z "$ended"; and string match -q -- '--*=*' $cur
        set -l parts (string split -m 1 = -- $cur)
        __performer_values "$words[1] $parts[1]"
        __performer_offer "$parts[2]" $parts[1]=
        return
    end
    if test -n "$ended"; or not string match -q -- '-*' $cur
        __performer_values "$words[1] $place"
        if test -n "$ended$cur$values$files"
            __performer_offer $cur ''
            return
        end
    end
    for i in (seq 1 4 (count $flags))
        contains -- $flags[$i] $given; and test $flags[(math $i + 2)] != values; or printf '%s\\t%s\\n' $flags[$i] $flags[(math $i + 3)]
    end
`;
