// Package walls holds the import rules of this module in one table, rooms, and
// the tests that check code, linter and documentation against it:
//
//   - go list says what every package imports and what the agent links,
//   - the depguard rules in .golangci.yml and the tables in docs/architecture.md
//     are written from the table by `go test ./test/walls -update`.
//
// A new package takes one line in rooms, and that command.
package walls

// A room is a package, or a tree of packages where its path ends in "/...".
type room struct {
	// path is that of its directory; "." is the module's root.
	path string
	// imports are the packages of this module that it may import: paths with
	// spaces between them. Test files may import more.
	imports string
	// task is what it is for.
	task string
}

// rooms are all of them. The first one that holds a package decides.
var rooms = []room{
	{".", "", "the contract: every operation and every control-channel message (`openapi.yaml`)"},
	{"./gen/types", "", "the contract's schemas as Go types, generated"},
	{"./gen/...", "./gen/types", "the contract's server and client, generated"},

	{"./db/dbtest", "./db/...", "for tests: a migrated database for each test"},
	{"./db/...", "./db/...", "SQL, transactions, migrations; returns rows and its own errors. `db/postgres` is the embedded Postgres: find, set up, start, recover, stop; `db/atrest` encrypts its secrets"},

	{"./internal/await", "", "for tests: wait for a value or a condition"},
	{"./internal/linetest", "", "for tests: hosts and lines that fail in part"},
	{"./internal/testlog", "", "for tests: a log that is read while it is written"},
	{"./internal/wstest", "", "for tests: the two ends of a WebSocket"},
	{"./internal/backoff", "", "the pauses between attempts to connect"},
	{"./internal/channel", "./internal/backoff", "a channel of messages over a WebSocket: liveness, one writer, the reason of its end"},
	{"./internal/files", "", "files that people write, that hold secrets, or that are the program's own: how they are read and replaced"},
	{"./internal/prompt/prompttest", "", "for tests: a terminal"},
	{"./internal/prompt", "", "asks a person at a terminal for a secret"},
	{"./internal/terminal", "", "makes text safe to print to a terminal"},
	{"./internal/commandline", "", "completions for shells and manual pages, from a program's grammar"},
	{"./internal/dialer", "./internal/netaddr", "connections to hosts of which a part fails: which address to begin with"},
	{"./internal/gameping", "./gen/types", "asks game servers for their status, in the protocols of many games; what they answer is not trusted"},
	{"./internal/lograte", "", "how often a line is logged about one thing"},
	{"./internal/openfiles", "./internal/lograte", "how many files a process may have open, shared among the allocations that it carries"},
	{"./internal/sources", "", "what each source of connections or datagrams has, which has most, and how fast each may have more"},
	{"./internal/connlimit", "./internal/netaddr ./internal/sources", "how many connections a listener has whose peers nobody knows yet, and which of them gives way"},
	{"./internal/netaddr", "", "what counts as one address, one host and one prefix"},
	{"./internal/diagnostics", "", "metrics and profiles, on listeners of their own"},
	{"./internal/controlclient", "./gen/types ./internal/channel ./internal/backoff", "a device's end of its control channel, for tunnel clients and tunnel servers: desired state in, status reports out"},
	{"./internal/contracttest", ".", "for tests: every response is checked against the contract"},

	{"./relay/wire", "", "the messages between agent and tunnel server: a pure codec"},
	{"./relay/seal", "", "encrypted packets: keys from TLS, sealing, opening, replay protection; a pure codec"},
	{"./relay/seal/sealtest", "./relay/seal", "for tests: sealed packets"},
	{"./relay/udpsock", "", "UDP sockets that read and write many datagrams at a time"},
	{"./relay/shaping", "", "divides a bandwidth among players: which stream may go on, which datagram is dropped; moves no bytes itself"},
	{"./relay/meter", "", "counts what a player's connection and what an allocation carries"},
	{"./relay/tcpstream", "./relay/meter ./relay/wire", "one player's TCP bytes over a data connection; used at both ends"},
	{"./relay/udptunnel", "./relay/wire ./relay/meter ./relay/seal ./relay/udpsock", "datagrams between the ends: over a data connection, in sealed packets, and the choice between the two; used at both ends"},
	{"./relay/publicport", "./relay/wire ./relay/meter ./relay/udpsock ./relay/shaping ./relay/tcpstream ./relay/udptunnel ./gen/types ./internal/...", "public ports: accepts players, reads datagrams, decides who may enter; knows tunnel clients by an interface of its own"},
	{"./relay/session", "./relay/wire ./relay/seal ./relay/tcpstream ./relay/udptunnel ./gen/types ./internal/...", "linked tunnel clients: listener, tickets, links, data connections, UDP sessions"},
	{"./relay/relaytest", "./relay/... ./gen/types ./internal/...", "for tests: a tunnel server"},
	{"./relay", "./relay/... ./gen/types ./internal/...", "the tunnel server: assembles the packages below it, and orders start and stop"},

	{"./clients/tunnel", "./gen/client ./gen/types ./internal/dialer ./internal/netaddr", "the typed Go client that others import"},
	{"./clients/agent/internal/pacing", "", "limits what the agent sends to what its uplink carries"},
	{"./clients/agent/internal/store", "./internal/files", "the agent's files: tokens, keys, the last desired state, and the lock of the one agent of a device"},
	{"./clients/agent/internal/target", "./relay/tcpstream ./relay/udpsock ./relay/udptunnel ./relay/wire ./gen/types ./internal/dialer ./internal/gameping ./internal/netaddr ./internal/openfiles ./internal/sources", "local targets: TCP, UDP, the allow-list, the PROXY header"},
	{"./clients/agent/internal/link", "./clients/agent/internal/target ./relay/tcpstream ./relay/udptunnel ./relay/wire ./gen/types ./internal/...", "links to tunnel servers, their data connections and UDP sessions"},
	{"./clients/agent/internal/link/linktest", "./clients/agent/internal/... ./relay/... ./gen/types ./internal/...", "for tests: links with a tunnel server, a panel, games and players around them"},
	{"./clients/agent", "./clients/agent/internal/... ./clients/tunnel ./relay/... ./gen/types ./internal/...", "the agent as a library"},
	{"./clients/agent/local", "./clients/agent ./clients/tunnel ./gen/types", "the socket by which a running agent and its user's other programs on the machine talk"},
	{"./clients/agent/update", "./internal/files", "the agent's program: newer ones that the panel hands out, how they are checked, and how they take its place"},
	{"./clients/eclitunnel/internal/face/facetest", "./internal/terminal", "for tests: a terminal that shows what was drawn"},
	{"./clients/eclitunnel/internal/face", "./clients/agent ./gen/types ./internal/terminal", "the picture of a running agent in a terminal"},
	{"./clients/eclitunnel", "./clients/agent ./clients/agent/local ./clients/agent/update ./clients/eclitunnel/internal/... ./clients/tunnel ./relay/... ./gen/types ./internal/... ./deploy/systemd", "the agent's binary: flags, environment, signals, exit codes"},
	{"./deploy/systemd", "", "the units of the programs"},

	{"./server/eclitunneld", "./server ./internal/...", "the panel's binary"},
	{"./server/internal/tracing/tracingtest", "", "for tests: a collector of traces"},
	{"./server/internal/tracing", "./internal/lograte", "traces of requests and of control-channel messages, sent to a collector by OTLP"},
	{"./server/...", ". ./gen/... ./db/... ./relay/... ./server/... ./internal/...", "the panel: handlers, authentication, enrollment, control channels, events and webhooks, pages; `server/servertest` is a panel for tests"},

	{"./scripts/release", "", "`make release`: archives, packages, checksums and their signature"},

	{"./test/lib/...", "./test/lib/... ./gen/client ./gen/types", "what tests and their programs are made of; see `test/README.md`"},
	{"./test/run/...", "./test/lib/... ./test/run/... ./gen/client ./gen/types", "programs: the demo, the bench, the soak that breaks a fleet"},
	{"./test/...", "", "tests of the whole: end to end, load, deployment, import rules"},
}

// A wall keeps packages of others, or of the standard library, to a few rooms.
type wall struct {
	// pkg is an import path; "/..." at its end stands for everything below it too.
	pkg string
	// rooms may import it: paths with spaces between them.
	rooms string
	// tests says that test files everywhere may import it.
	tests bool
	// why is what the linter says.
	why string
}

var walls = []wall{
	{"database/sql/...", "./db/...", false, "Nothing above db knows SQL; db returns rows and its own errors."},
	{"github.com/jmoiron/sqlx/...", "./db/...", false, "Nothing above db knows SQL."},
	{"github.com/lib/pq/...", "./db/...", false, "Nothing above db knows SQL; the agent must not link it."},
	{"github.com/pressly/goose/...", "./db/...", false, "Migrations belong to db."},
	{"github.com/lestrrat-go/jwx/...", "./server/internal/auth ./relay/session", true, "Tokens are made and checked in one place, and tickets checked in one place."},
	{"github.com/coreos/go-oidc/...", "./server/internal/oauth", false, "People log in at other identity providers in one place."},
	{"golang.org/x/oauth2/...", "./server/internal/oauth", false, "People log in at other identity providers in one place."},
	{"golang.org/x/crypto/acme/...", "./server ./server/internal/certificate", true, "Certificates are got in one place."},
	{"github.com/letsencrypt/pebble/...", "./server/acmetest", false, "The certificate authority of tests stands in one place; no binary links it."},
	{"github.com/getkin/kin-openapi/...", "./server/... ./internal/contracttest", false, "Only the panel validates against the contract; the agent must not link it."},
	{"github.com/prometheus/client_golang/...", "./relay ./clients/agent ./server ./internal/diagnostics", true, "Counters are atomics that return plain numbers; one file of each part turns them into metrics."},
	{"github.com/kardianos/service/...", "./clients/eclitunnel", false, "The agent becomes a service in one place."},
	{"go.opentelemetry.io/...", "./server/internal/tracing ./server/internal/tracing/tracingtest", true, "Traces are made in one place; the agent must not link it."},
	{"google.golang.org/grpc/...", "", false, "It is here for packages of others; the panel speaks HTTP."},
	{"github.com/wneessen/go-mail/...", "./server/internal/mail", false, "Mail is sent in one place; the agent must not link it."},
	{"log", "", true, "Logging is log/slog, and the logger is passed in."},
}

// agent is the binary that people run at home, and notLinked what it must not link.
const agent = "./clients/eclitunnel"

var notLinked = []string{
	"./server/...", "./db/...", "./gen/server",
	"go.opentelemetry.io/...",
	"github.com/lib/pq/...", "github.com/jmoiron/sqlx/...", "github.com/getkin/kin-openapi/...",
}
