package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/server/acmetest"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
	"github.com/eclitunnel/eclitunnel/test/lib/documents"
	"github.com/eclitunnel/eclitunnel/test/lib/game"
)

// notTyped are the commands of the README that its walk leaves out, and why.
var notTyped = map[string]string{
	"make demo":  "it plays by itself, and stays up",
	"make test":  "this is one of those tests",
	"make build": "the binaries under test are built",
}

// seen is what a person waits to see of a command that does not end by itself. Every
// other command must end.
var seen = map[string]*regexp.Regexp{
	"eclitunneld serve": regexp.MustCompile(`panel is ready`),
	"eclitunnel enroll": regexp.MustCompile(`(?m)^ +` + userCode.String() + `$`),
	"eclitunnel run":    regexp.MustCompile(`connected to `),
}

var userCode = regexp.MustCompile(`[A-Z]{4}-[0-9]{4}`)

// walkPatience bounds a command: the panel sets up a database.
const walkPatience = 2 * time.Minute

// readmeGames are the games that the README names, at the ports that are theirs.
var readmeGames = []struct {
	name, protocol string
	first, last    int
}{
	{"Minecraft Java Edition", "tcp", 25565, 25565},
	{"Bedrock Edition", "tcp", 19132, 19132},
	{"Bedrock Edition", "udp", 19132, 19132},
	{"Valheim", "udp", 2456, 2458},
}

// firewall lets new connections into this machine only to some ports: an expression of nft
// for each protocol, or "".
func firewall(ctx context.Context, tcp, udp string) error {
	rules := "ct state established,related accept; meta l4proto icmp accept; iifname lo accept;\n"
	for protocol, ports := range map[string]string{"tcp": tcp, "udp": udp} {
		if ports != "" {
			rules += fmt.Sprintf("%s dport { %s } accept;\n", protocol, ports)
		}
	}
	return cluster.Feed(ctx, "nft", "table ip firewall { chain input { type filter hook input priority 0; policy drop;\n"+rules+"}\n}\n", "-f", "-")
}

// desk is a machine at which a person types commands.
type desk struct {
	place *cluster.Place
	dir   string // The working directory and home.
	hosts string // Its /etc/hosts.
	path  string // What comes before the tests' PATH.
	roots string // A file with the certificates that its programs trust.
	env   []string
}

func newDesk(t *testing.T, place *cluster.Place, hosts string) *desk {
	t.Helper()
	d := &desk{place: place, dir: clustertest.Dir(t), hosts: hosts}
	if err := os.Mkdir(d.state(), 0o755); err != nil {
		t.Fatal(err)
	}
	return d
}

// state is the machine's /var/lib.
func (d *desk) state() string { return filepath.Join(d.dir, "state") }

// open types commands into a new terminal of that name, which has no settings but the
// commands' own.
func (d *desk) open(t *testing.T, name, script string) *cluster.Process {
	t.Helper()
	const machine = `mount --bind "$0" /etc/hosts && mount --bind "$1" /var/lib && exec bash -ec "$2"`
	cmd := exec.Command("unshare", "--mount", "sh", "-c", machine, d.hosts, d.state(), script)
	cmd.Dir = d.dir
	cmd.Env = append([]string{"PATH=" + d.path + os.Getenv("PATH"), "HOME=" + d.dir, "SSL_CERT_FILE=" + d.roots}, d.env...)
	p, err := d.place.Start(name, cmd, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Ctrl-C, which reaches every program of the terminal.
		if err := syscall.Kill(-p.PID(), syscall.SIGINT); err != nil && err != syscall.ESRCH {
			t.Error(err)
		}
		if _, err := p.Wait(withoutTest(t, patience)); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(p.LastLines(40))
		}
	})
	return p
}

// withoutTest returns a context for a test's cleanup.
func withoutTest(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), d)
	t.Cleanup(cancel)
	return ctx
}

// walk is a person who follows the README.
type walk struct {
	t          *testing.T
	readme     documents.Document
	text       string
	panel      *desk
	home       *desk
	player     *cluster.Place
	left       map[string]bool  // The commands of notTyped that were met.
	enrollment *cluster.Process // The terminal that waits for an approval; nil: none does.
	code       string           // What it printed.
	printed    strings.Builder  // By the commands that ended.
}

func newWalk(t *testing.T) *walk {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	w := &walk{t: t, text: string(text), readme: documents.Page("README.md", string(text)), left: map[string]bool{}}
	hosts := filepath.Join(clustertest.Dir(t), "hosts")
	writeFile(t, hosts, []byte("127.0.0.1 localhost\n"+publicSide+" panel.example.com play.example.com\n"), 0o644)
	w.panel = newDesk(t, new(cluster.Place), hosts)
	w.home = newDesk(t, newHome(t).Place, hosts)
	bin, err := filepath.Abs(binaries)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(bin, filepath.Join(w.panel.dir, "bin")); err != nil {
		t.Fatal(err)
	}
	w.home.path = bin + ":"
	// Stands for the public authority, which everybody trusts.
	authority := acmetest.Start(t, acmetest.Options{
		Address: publicSide, TLS: net.JoinHostPort(publicSide, "443"), HTTP: net.JoinHostPort(publicSide, "80"), Lifetime: 24 * time.Hour,
	})
	w.panel.roots = filepath.Join(clustertest.Dir(t), "authorities.pem")
	writeFile(t, w.panel.roots, authority.Trusted, 0o644)
	w.home.roots = w.panel.roots
	w.panel.env = []string{"ECLITUNNEL_ACME_DIRECTORY=" + authority.Directory}
	if w.player, err = cluster.NewPlace(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.player.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := w.player.Cable(t.Context(), "public1", netip.MustParseAddr("10.79.0.1"), netip.MustParseAddr("10.79.0.2")); err != nil {
		t.Fatal(err)
	}
	return w
}

// says returns what an expression finds in the README.
func (w *walk) says(expression string) []string {
	w.t.Helper()
	found := regexp.MustCompile(expression).FindStringSubmatch(w.text)
	if found == nil {
		w.t.Fatalf("the README says nothing like %s", expression)
	}
	return found[1:]
}

// closePorts has firewalls let in what the README has people open, and nothing at home.
func (w *walk) closePorts() {
	w.t.Helper()
	ports := w.says(`(\d+ and \d+) \(TCP\) for the panel, (\d+) \(TCP and UDP\) for agents, and (\d+) to (\d+) \(TCP and UDP\) for players`)
	both := fmt.Sprintf("%s, %s-%s", ports[1], ports[2], ports[3])
	for _, err := range []error{
		firewall(w.t.Context(), strings.Replace(ports[0], " and ", ", ", 1)+", "+both, both),
		w.home.place.Do(func() error { return firewall(w.t.Context(), "", "") }),
	} {
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// typed returns a block without the commands of notTyped, and those that are left.
func (w *walk) typed(block string) (script string, commands []string) {
	w.t.Helper()
	all, err := w.readme.Statements(block)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, command := range all {
		if _, skip := notTyped[command]; skip {
			w.left[command] = true
			block = strings.Replace(block, command, ":", 1)
			continue
		}
		commands = append(commands, command)
	}
	return block, commands
}

// follow types a block of commands where it belongs, and waits for what a person would.
func (w *walk) follow(block string) {
	w.t.Helper()
	script, commands := w.typed(block)
	if len(commands) == 0 {
		return
	}
	at := w.home
	if strings.Contains(script, "bin/eclitunneld") {
		at = w.panel
	}
	approves := userCode.MatchString(script)
	if approves {
		script = userCode.ReplaceAllString(script, w.code)
	}
	words := append(strings.Fields(commands[len(commands)-1]), "")
	name := path.Base(words[0]) + " " + words[1]
	terminal := at.open(w.t, name, script)
	if sign := seen[name]; sign != nil {
		await.Within(w.t, walkPatience, fmt.Sprintf("%q of %s", sign, name), func(context.Context) (bool, error) {
			select {
			case <-terminal.Done():
				w.t.Fatalf("%s ended with exit code %d", name, terminal.ExitCode())
			default:
			}
			return sign.MatchString(terminal.Output()), nil
		})
		if words[1] == "enroll" {
			w.enrollment, w.code = terminal, userCode.FindString(terminal.Output())
			if address := w.says("Open the address, `([^`]+)`")[0]; !strings.Contains(terminal.Output(), address) {
				w.t.Errorf("enroll does not print %s", address)
			}
		}
		return
	}
	w.ends(name, terminal)
	if approves && w.enrollment != nil {
		w.ends("eclitunnel enroll", w.enrollment)
	}
}

// ends waits for a terminal whose commands must succeed.
func (w *walk) ends(name string, terminal *cluster.Process) {
	w.t.Helper()
	code, err := terminal.Wait(within(w.t, walkPatience))
	if err != nil || code != 0 {
		w.t.Fatalf("%s: exit code %d, %v", name, code, err)
	}
	w.printed.WriteString(terminal.Output())
}

// row is a line of ports that open printed.
var row = regexp.MustCompile(`(?m)^\d+ +(tcp|udp) +(\S+):(\d+)(?:-(\d+))? +127\.0\.0\.1:(\d+)(?:-(\d+))? +listening`)

// opened returns the public addresses by protocol and local port, such as "udp 2456".
func (w *walk) opened() map[string]string {
	w.t.Helper()
	first, last := 0, 0
	for i, port := range w.says(`(\d+) to (\d+) \(TCP and UDP\) for players`) {
		*[]*int{&first, &last}[i] = decimal(w.t, port)
	}
	opened := map[string]string{}
	for _, r := range row.FindAllStringSubmatch(w.printed.String(), -1) {
		public, local, end := decimal(w.t, r[3]), decimal(w.t, r[5]), decimal(w.t, r[5])
		if r[6] != "" {
			end = decimal(w.t, r[6])
		}
		for i := range end - local + 1 {
			if public+i < first || public+i > last || r[2] != "play.example.com" {
				w.t.Errorf("players enter %s:%d", r[2], public+i)
			}
			opened[fmt.Sprint(r[1], " ", local+i)] = net.JoinHostPort(publicSide, strconv.Itoa(public+i))
		}
	}
	return opened
}

func decimal(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// startGames starts the games of the README at home.
func (w *walk) startGames() {
	w.t.Helper()
	var ports []int
	for _, g := range readmeGames {
		for port := g.first; port <= g.last; port++ {
			if !slices.Contains(ports, port) { // A server answers over both protocols.
				ports = append(ports, port)
			}
		}
	}
	for _, port := range ports {
		err := w.home.place.Do(func() error {
			s, err := game.Listen(w.t.Context(), loopback(port), fmt.Sprint("game ", port))
			if err == nil {
				w.t.Cleanup(func() { _ = s.Close() })
			}
			return err
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// play has a player on a third machine reach every game, and nothing else be open.
func (w *walk) play() {
	w.t.Helper()
	opened := w.opened()
	for _, g := range readmeGames {
		w.says(g.name)
		for port := g.first; port <= g.last; port++ {
			key := fmt.Sprint(g.protocol, " ", port)
			public, ok := opened[key]
			if !ok {
				w.t.Errorf("%s: nothing opens %s", g.name, key)
				continue
			}
			delete(opened, key)
			ping := game.PingJava
			if g.protocol == "udp" {
				ping = game.PingBedrock
			}
			err := w.player.Do(func() error {
				status, _, err := ping(within(w.t, patience), public)
				if err == nil && !strings.HasPrefix(status.MOTD, fmt.Sprintf("game %d: ", port)) {
					err = fmt.Errorf("%q answers", status.MOTD)
				}
				return err
			})
			if err != nil {
				w.t.Errorf("%s, %s: %v", g.name, key, err)
			}
		}
	}
	if len(opened) > 0 {
		w.t.Errorf("opened for no game that is named: %v", opened)
	}
}

func TestReadme_LeadsWordForWordToAPlayer(t *testing.T) {
	for _, program := range []string{"unshare", "bash", "curl", "jq"} {
		find(t, program)
	}
	if !ownNetwork(t) {
		return
	}
	w := newWalk(t)
	cluster.Kept().Secret("password", w.says(`ECLITUNNEL_ADMIN_PASSWORD='([^']+)'`)[0])
	if fences := strings.Count("\n"+w.text, "\n```"); fences != 2*len(w.readme.Blocks) {
		t.Errorf("%d fences around %d blocks of commands: the others are not walked", fences, len(w.readme.Blocks))
	}
	w.closePorts()
	w.startGames()
	for _, block := range w.readme.Blocks {
		w.follow(block)
	}
	for command, why := range notTyped {
		if !w.left[command] {
			t.Errorf("the README has no %q, which is left out because %s", command, why)
		}
	}
	if _, err := os.Stat(filepath.Join(w.panel.state(), "eclitunneld")); err != nil {
		t.Errorf("the database is not in /var/lib/eclitunneld: %v", err)
	}
	if err := cluster.Kept().Link(filepath.Join(w.panel.state(), "eclitunneld", "postgres.log")); err != nil {
		t.Error(err)
	}
	w.play()
}
