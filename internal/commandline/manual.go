package commandline

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// Manual describes the manual pages of a program.
type Manual struct {
	// Version and Date are those of the program. The date is what makes pages of one version differ.
	Version string
	Date    time.Time
	// Environment returns the name of a flag's environment variable, or "".
	Environment func(*kong.Flag) string
	// ExitStatus is a table of codes and meanings, one a line; may be empty.
	ExitStatus string
}

// Page is a manual page in the format of man(7), section 1.
type Page struct {
	Name string // Of the file, such as eclitunnel-open.1.
	Text string
}

// Pages returns the page of a program and one for each of its commands.
func (m Manual) Pages(model *kong.Application) []Page {
	pages := []Page{m.page(model.Node, model)}
	var add func(node *kong.Node)
	add = func(node *kong.Node) {
		for _, child := range node.Children {
			if child.Hidden {
				continue
			}
			if child.Leaf() {
				pages = append(pages, m.page(child, model))
			}
			add(child)
		}
	}
	add(model.Node)
	return pages
}

// pageName returns the name of a command's page: the words of the command with hyphens.
func pageName(node *kong.Node) string {
	if node.Parent == nil {
		return node.Name
	}
	return pageName(node.Parent) + "-" + node.Name
}

func (m Manual) page(node *kong.Node, model *kong.Application) Page {
	var out roff
	name := pageName(node)
	out.macro("TH", strings.ToUpper(name), "1", m.Date.UTC().Format(time.DateOnly), model.Name+" "+m.Version, "EcliTunnel")
	out.macro("SH", "NAME")
	help, detail, _ := strings.Cut(node.Help, "\n")
	if node.Detail != "" {
		detail = node.Detail
	}
	out.text(name + ` \-`)
	out.wrap(strings.TrimSuffix(help, "."))
	out.macro("SH", "SYNOPSIS")
	words := strings.ReplaceAll(name, "-", " ")
	out.text(`\fB` + escapeRoff(words) + `\fR ` + escapeRoff(strings.TrimSpace(strings.TrimPrefix(node.Summary(), node.Path()))))
	if detail = strings.TrimSpace(detail); detail != "" {
		out.macro("SH", "DESCRIPTION")
		out.prose(detail)
	}
	if len(node.Positional) > 0 {
		out.macro("SH", "ARGUMENTS")
		for _, argument := range node.Positional {
			out.item(`\fI`+escapeRoff(argument.Name)+`\fR`, argument.Help)
		}
	}
	m.commands(&out, node)
	m.flags(&out, node)
	if m.ExitStatus != "" {
		out.macro("SH", "EXIT STATUS")
		for line := range strings.Lines(m.ExitStatus) {
			code, meaning, _ := strings.Cut(strings.TrimSpace(line), " ")
			out.item(escapeRoff(code), strings.TrimSpace(meaning))
		}
	}
	if node.Parent != nil {
		out.macro("SH", "SEE ALSO")
		out.text(`\fB` + escapeRoff(model.Name) + `\fR(1)`)
	}
	return Page{Name: name + ".1", Text: out.String()}
}

// commands writes the commands below a node, with all their words.
func (m Manual) commands(out *roff, node *kong.Node) {
	leaves := node.Leaves(true)
	if node.Leaf() || len(leaves) == 0 {
		return
	}
	out.macro("SH", "COMMANDS")
	for _, leaf := range leaves {
		out.item(`\fB`+escapeRoff(pageName(leaf))+`\fR(1)`, leaf.Help)
	}
}

// flags writes the flags of a command, and those of all commands.
func (m Manual) flags(out *roff, node *kong.Node) {
	flags := flagsOf(node)
	if len(flags) == 0 {
		return
	}
	out.macro("SH", "OPTIONS")
	for _, flag := range flags {
		name := "--" + flag.Name
		if flag.Tag.Negatable != "" {
			name = "--[no-]" + flag.Name
		}
		term := `\fB` + escapeRoff(name) + `\fR`
		if flag.Short != 0 {
			term = `\fB` + escapeRoff("-"+string(flag.Short)) + `\fR, ` + term
		}
		if !flag.IsBool() {
			term += `=\fI` + escapeRoff(flag.FormatPlaceHolder()) + `\fR`
		}
		help := flag.Help
		if variable := m.Environment(flag); variable != "" && !strings.Contains(help, variable) {
			help = strings.TrimSuffix(help, ".") + " ($" + variable + ")."
		}
		out.item(term, help)
	}
}

// roff is a page that is being written.
type roff struct{ strings.Builder }

// macro writes a macro with its arguments.
func (r *roff) macro(name string, arguments ...string) {
	r.WriteString("." + name)
	for _, argument := range arguments {
		fmt.Fprintf(r, ` "%s"`, strings.ReplaceAll(argument, `"`, `\(dq`))
	}
	r.WriteString("\n")
}

// text writes a line whose characters are escaped already.
func (r *roff) text(line string) { r.WriteString(strings.TrimSpace(line) + "\n") }

// item writes a paragraph with a term, which is escaped already.
func (r *roff) item(term, help string) {
	r.macro("TP")
	r.text(term)
	r.wrap(help)
}

// maxLine is the length at which lines of text end, as roff's users expect.
const maxLine = 78

// wrap writes text that is not escaped in lines.
func (r *roff) wrap(text string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if longer := escapeRoff(line + " " + word); line != "" && len(longer) > maxLine {
			r.text(escapeRoff(line))
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	r.text(escapeRoff(line))
}

// prose writes paragraphs, of which those that are indented stay as they are.
func (r *roff) prose(text string) {
	verbatim, blank := false, false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch indented := strings.HasPrefix(line, "    "); {
		case line == "":
			blank = true
			continue
		case indented && !verbatim:
			r.WriteString(".PP\n.RS 4\n.nf\n")
			verbatim = true
		case !indented && verbatim:
			r.WriteString(".fi\n.RE\n.PP\n")
			verbatim = false
		case !indented && blank:
			r.WriteString(".PP\n")
		}
		blank = false
		if verbatim {
			r.WriteString(escapeRoff(strings.TrimPrefix(line, "    ")) + "\n")
		} else {
			r.wrap(line)
		}
	}
	if verbatim {
		r.WriteString(".fi\n.RE\n")
	}
}

// escapeRoff escapes what roff takes for its own: backslashes, hyphens, which would become dashes, and dots and
// apostrophes at the beginning of a line.
func escapeRoff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ").Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}

// PageDate returns the date of pages: that of SOURCE_DATE_EPOCH, which makes builds reproducible, or now without it.
func PageDate(epoch string) (time.Time, error) {
	if epoch == "" {
		return time.Now(), nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0), nil
}

// Write writes the pages into a directory, which it creates.
func (m Manual) Write(model *kong.Application, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, page := range m.Pages(model) {
		if err := os.WriteFile(filepath.Join(dir, page.Name), []byte(page.Text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
