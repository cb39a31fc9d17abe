// Package manual writes the help text, the manual page and the completions,
// all from the table of settings.
package manual

import (
	"fmt"
	"strings"

	"github.com/seed454743b5/signin/front/internal/settings"
)

// commands are what may stand first on the command line.
var commands = []struct{ name, args, doc string }{
	{"check", "[FLAGS]", "Report every fault of the settings, without a network; exit 1 if there is one"},
	{"explain", "[FLAGS] METHOD URL", "Say which route and rule decide about a request"},
	{"import", "FILE", "Write the settings that do what an oauth2-proxy.cfg does, and list what could not be carried over"},
	{"man", "", "Write this manual page"},
	{"completion", "bash|zsh|fish", "Write a script that completes commands and flags in a shell"},
	{"version", "", "Write the version"},
	{"help", "", "Write a short help text"},
}

// Usage is the help text.
func Usage() string {
	var b strings.Builder
	b.WriteString("Usage: signin-front [FLAGS]\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "       %s\n", strings.TrimRight("signin-front "+c.name+" "+c.args, " "))
	}
	b.WriteString("\nFlags, which may also stand in the file (with underscores) and in the environment (as FRONT_...):\n\n")
	fmt.Fprintf(&b, "  -config FILE\n        The file with the settings, YAML\n")
	for _, s := range settings.Table() {
		fmt.Fprintf(&b, "  %s\n        %s%s\n", strings.TrimRight("-"+s.Flag()+" "+s.Arg, " "), s.Doc, byDefault(s))
	}
	return b.String()
}

func byDefault(s settings.Setting) string {
	if s.Default == "" {
		return ""
	}
	return " (default " + s.Default + ")"
}

// Man is the manual page, in the man macros.
func Man() string {
	var b strings.Builder
	b.WriteString(".TH SIGNIN-FRONT 8\n.SH NAME\nsignin-front \\- sign-in with OpenID Connect in front of any site\n.SH SYNOPSIS\n.B signin-front\n[\\fIFLAGS\\fR]\n")
	for _, c := range commands {
		fmt.Fprintf(&b, ".br\n.B signin-front %s\n", c.name)
		if c.args != "" {
			fmt.Fprintf(&b, "\\fI%s\\fR\n", roff(c.args))
		}
	}
	b.WriteString(".SH DESCRIPTION\nsignin-front signs users in with an OpenID Provider, decides by rules who may pass, and tells the server behind who it is, " +
		"by headers. It is a reverse proxy, and it answers nginx's auth_request, Traefik's forwardAuth and Caddy's forward_auth at /oidc/auth.\n")
	b.WriteString(".SH COMMANDS\nWithout a command it serves.\n")
	for _, c := range commands {
		fmt.Fprintf(&b, ".TP\n.B %s\n%s.\n", strings.TrimRight(c.name+" "+roff(c.args), " "), roff(c.doc))
	}
	b.WriteString(".SH SETTINGS\nEach has one name in three spellings: as a flag, in the file, in the environment. Flags win, then the environment, then the file. " +
		"Names that are not known are faults.\n.TP\n.B \\-config \\fIFILE\\fR, FRONT_CONFIG\nThe file with the settings, YAML. SIGHUP has it read again.\n")
	for _, s := range settings.Table() {
		fmt.Fprintf(&b, ".TP\n.B \\-%s \\fI%s\\fR\n.br\n%s, %s\n.br\n%s%s.\n", roff(s.Flag()), roff(s.Arg), roff(s.Name), roff(s.Env()), roff(s.Doc), roff(byDefault(s)))
	}
	b.WriteString(".SH SIGNALS\nSIGHUP reads the settings again; with a fault in them the old ones stay. SIGTERM and SIGINT stop it once the requests under way have ended.\n" +
		".SH EXIT STATUS\n0: all is well. 1: the settings have a fault, or serving failed. 2: the command line is wrong.\n")
	return b.String()
}

// roff escapes text: a hyphen that is typed, a backslash, a dot at the start.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

// Completion is a script for a shell, and false for one that is not known.
func Completion(shell string) (string, bool) {
	var names, flags []string
	for _, c := range commands {
		names = append(names, c.name)
	}
	flags = append(flags, "-config")
	for _, s := range settings.Table() {
		flags = append(flags, "-"+s.Flag())
	}
	switch shell {
	case "bash":
		return bash(names, flags), true
	case "zsh":
		return zsh(), true
	case "fish":
		return fish(), true
	}
	return "", false
}

func bash(names, flags []string) string {
	var files []string
	for _, s := range settings.Table() {
		if s.Arg == "FILE" || s.Arg == "DIR" {
			files = append(files, "-"+s.Flag())
		}
	}
	return fmt.Sprintf(`_signin_front() {
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
	case $before in
	-config|import|%s)
		COMPREPLY=($(compgen -f -- "$word"))
		return ;;
	completion)
		COMPREPLY=($(compgen -W "bash zsh fish" -- "$word"))
		return ;;
	esac
	if [[ $word == -* ]]; then
		COMPREPLY=($(compgen -W "%s" -- "$word"))
	elif ((COMP_CWORD == 1)); then
		COMPREPLY=($(compgen -W "%s" -- "$word"))
	fi
}
complete -F _signin_front signin-front
`, strings.Join(files, "|"), strings.Join(flags, " "), strings.Join(names, " "))
}

func zsh() string {
	var b strings.Builder
	b.WriteString("#compdef signin-front\n_arguments \\\n  '1::command:(")
	for i, c := range commands {
		if i > 0 {
			b.WriteString(" ")
		}
		b.WriteString(c.name)
	}
	b.WriteString(")' \\\n  '-config[The file with the settings]:file:_files'")
	for _, s := range settings.Table() {
		doc := strings.NewReplacer("'", "", "[", "(", "]", ")", ":", " ").Replace(s.Doc)
		switch s.Arg {
		case "":
			fmt.Fprintf(&b, " \\\n  '-%s[%s]'", s.Flag(), doc)
		case "FILE", "DIR":
			fmt.Fprintf(&b, " \\\n  '-%s[%s]:%s:_files'", s.Flag(), doc, s.Arg)
		default:
			fmt.Fprintf(&b, " \\\n  '-%s[%s]:%s: '", s.Flag(), doc, s.Arg)
		}
	}
	b.WriteString("\n")
	return b.String()
}

func fish() string {
	var b strings.Builder
	b.WriteString("complete -c signin-front -f\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "complete -c signin-front -n __fish_use_subcommand -a %s -d '%s'\n", c.name, c.doc)
	}
	b.WriteString("complete -c signin-front -o config -r -F -d 'The file with the settings'\n")
	for _, s := range settings.Table() {
		more := " -r"
		if s.Arg == "" {
			more = ""
		} else if s.Arg == "FILE" || s.Arg == "DIR" {
			more = " -r -F"
		}
		fmt.Fprintf(&b, "complete -c signin-front -o %s%s -d '%s'\n", s.Flag(), more, strings.ReplaceAll(s.Doc, "'", ""))
	}
	return b.String()
}
