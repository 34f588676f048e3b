package db_test

import (
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/lib/pq"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func TestOpen_RefusesADatabaseThatIsNotUTF8(t *testing.T) {
	target := dbtest.URL(t)
	u, err := url.Parse(target)
	if err != nil || u.Scheme == "" {
		t.Skip("needs a server with a URL")
	}
	connections := dbtest.SQL(t, dbtest.Open(t, target))
	for _, encoding := range []string{"SQL_ASCII", "LATIN1", "EUC_JP"} {
		name := "eclitunnel_" + strings.ToLower(encoding) + "_" + strings.TrimPrefix(u.Path, "/eclitunnel_test_")
		_, err := connections.ExecContext(t.Context(), `CREATE DATABASE `+pq.QuoteIdentifier(name)+
			` ENCODING `+pq.QuoteLiteral(encoding)+` LOCALE 'C' TEMPLATE template0`)
		check(t, err)
		other := *u
		other.Path = "/" + name
		_, err = db.Open(t.Context(), db.Options{URL: other.String()})
		wantErr(t, err, db.ErrEncoding)
		if err != nil && (!strings.Contains(err.Error(), encoding) || db.Unavailable(err)) {
			t.Errorf("got %v", err)
		}
		_, err = connections.ExecContext(t.Context(), `DROP DATABASE `+pq.QuoteIdentifier(name)+` WITH (FORCE)`)
		check(t, err)
	}
}

func TestMigrate_RefusesANewerSchema(t *testing.T) {
	d := dbtest.New(t)
	before, err := d.SchemaVersion(t.Context())
	check(t, err)
	_, err = dbtest.SQL(t, d).ExecContext(t.Context(),
		`INSERT INTO goose_db_version (version_id, is_applied) VALUES ($1, true)`, before+1)
	check(t, err)
	wantErr(t, d.Migrate(t.Context()), db.ErrNewerSchema)
}

// plainServer accepts connections like a Postgres without TLS, and returns its address.
func plainServer(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			var request [8]byte
			if _, err := io.ReadFull(conn, request[:]); err == nil {
				_, _ = conn.Write([]byte("N"))
			}
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return listener.Addr().String()
}

func TestOpen_SaysThatTheServerOffersNoTLS(t *testing.T) {
	address := plainServer(t)
	for _, mode := range []string{"", "?sslmode=require", "?sslmode=verify-full"} {
		_, err := db.Open(t.Context(), db.Options{URL: "postgres://panel:hush@" + address + "/x" + mode})
		wantErr(t, err, db.ErrNoTLS)
		if err != nil && (!strings.Contains(err.Error(), "sslmode=disable") || strings.Contains(err.Error(), "hush")) {
			t.Errorf("%q: %v", mode, err)
		}
	}
}

func TestCheckURL_SaysInItsOwnWordsWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"mysql://panel:hush@db.example.com/x":                        "starts with mysql://",
		"https://panel:hush@db.example.com/x":                        "starts with https://",
		"postgres://panel:hush@db.example.com/x?sslmode=hush":        "wrong value for sslmode",
		"postgres://panel:hush@db.example.com/x?connect_timeout=5s":  "wrong value for connect_timeout",
		"host=db.example.com port=hush password=hush":                "wrong value for port",
		"postgres://panel:hush@db.example.com/x?client_encoding=lat": "client_encoding",
		"postgres://panel:hu%sh@db.example.com/x":                    "malformed",
	} {
		err := db.CheckURL(text)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "database URL") ||
			strings.Contains(err.Error(), "pq:") || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
