package relay

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay/seal"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// maxHeader bounds the header of a request, a ticket of about 600 bytes in it.
const maxHeader = 8 << 10

// secretHash is by what a link's secret is looked up: comparing secrets
// themselves would tell by its time how much of a guess was right.
type secretHash [sha256.Size]byte

func newSecret() (string, secretHash) {
	secret := rand.Text() // 130 random bits.
	return secret, sha256.Sum256([]byte(secret))
}

// listener takes links and data connections.
type listener struct {
	server *Server
	http   *http.Server

	links, streams, datagrams websocket.Upgrader

	strangers *strangers
	pending   sync.WaitGroup // Connections that are net/http's.
}

func (s *Server) newListener() *listener {
	l := &listener{server: s, strangers: newStrangers(s.limits.Unauthenticated)}
	// Agents are no browsers: a request that comes from a page is refused, which
	// the upgraders do by its Origin.
	l.links = websocket.Upgrader{Subprotocols: []string{wire.Subprotocol}}
	l.datagrams = websocket.Upgrader{
		Subprotocols: []string{wire.Subprotocol},
		// One of its own: that of net/http would keep the rest of it in memory.
		ReadBufferSize:  udptunnel.ReadBufferSize,
		WriteBufferSize: udptunnel.WriteBufferSize,
		WriteBufferPool: &udptunnel.WriteBuffers,
	}
	l.streams = l.datagrams
	if s.opts.PlainStreams {
		l.streams.Subprotocols = []string{wire.SubprotocolPlain, wire.Subprotocol}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wire.PathLink, l.serveLink)
	mux.HandleFunc("GET "+wire.PathData, l.serveData)
	l.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: s.limits.Handshake, // Of the TLS handshake too.
		ReadTimeout:       s.limits.Handshake,
		WriteTimeout:      s.limits.Handshake,
		MaxHeaderBytes:    maxHeader,
		ConnState:         l.count,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return &s.identity.now().certificate, nil
			},
			NextProtos: []string{"http/1.1"}, // WebSockets are upgraded from nothing else.
		},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	// A connection is upgraded by its first request or not at all.
	l.http.SetKeepAlivesEnabled(false)
	return l
}

func (l *listener) serve() error {
	err := l.http.ServeTLS(tcpstream.NewListener(l.server.opts.Listener), "", "")
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("take links on %s: %w", l.server.opts.Listener.Addr(), err)
}

// close ends the listener and the connections that are not upgraded; wait, to
// be called after serve has returned, waits for them.
func (l *listener) close() { _ = l.http.Close() }
func (l *listener) wait()  { l.pending.Wait() }

// count holds the number of connections that have not been upgraded under its
// limit: only who has shown a ticket or secret is upgraded.
func (l *listener) count(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		l.pending.Add(1)
		l.strangers.enter(c)
	case http.StateHijacked, http.StateClosed:
		l.strangers.leave(c)
		l.pending.Done()
	}
}

// serveLink takes a link and speaks it until it ends.
func (l *listener) serveLink(w http.ResponseWriter, r *http.Request) {
	s := l.server
	if !speaks(w, r) {
		return
	}
	t, err := s.tickets.verify(bearer(r))
	if err == nil {
		err = s.admit(r.Context(), t)
	}
	if err != nil {
		s.log.Debug("link refused", slog.String("from", r.RemoteAddr), slog.Any("error", err))
		status := http.StatusUnauthorized
		if errors.Is(err, errOff) {
			status = http.StatusServiceUnavailable
		}
		http.Error(w, "the ticket is not accepted", status)
		return
	}
	if s.counters.links.Add(1) > int64(s.limits.Links) {
		s.counters.links.Add(-1)
		http.Error(w, "the tunnel server has as many links as it takes", http.StatusServiceUnavailable)
		return
	}
	from, resumes := r.RemoteAddr, r.URL.Query().Get(wire.CarrierParam)
	l.upgrade(&l.links, w, r, func() { s.counters.links.Add(-1) }, func(ws *websocket.Conn) {
		options := s.opts.Channel
		options.MaxMessage = wire.MaxLinkMessage
		newLink(s, t, resumes, channel.New(ws, options)).serve(from)
	})
}

// upgrade answers with an upgrade and has serve use the WebSocket, and release
// called after it or instead of it. It does not wait for them: as long as a
// handler runs, net/http holds its request and buffers, several times what an
// idle player takes otherwise.
func (l *listener) upgrade(u *websocket.Upgrader, w http.ResponseWriter, r *http.Request, release func(), serve func(*websocket.Conn)) {
	// Before the upgrade, after which net/http forgets the connection.
	l.server.work.Add(1)
	ws, err := u.Upgrade(w, r, nil)
	if err != nil { // Answered by the upgrader.
		release()
		l.server.work.Done()
		return
	}
	go func() {
		defer l.server.work.Done()
		defer release()
		serve(ws)
	}()
}

// serveData takes a data connection and serves it until it ends.
func (l *listener) serveData(w http.ResponseWriter, r *http.Request) {
	s := l.server
	if !speaks(w, r) {
		return
	}
	s.mu.Lock()
	link := s.secrets[sha256.Sum256([]byte(bearer(r)))]
	s.mu.Unlock()
	if link == nil {
		http.Error(w, "the link's secret is not known", http.StatusUnauthorized)
		return
	}
	kind := wire.Kind(r.URL.Query().Get(wire.KindParam))
	if !kind.Valid() {
		http.Error(w, "kind is stream or datagram", http.StatusBadRequest)
		return
	}
	var udp *udptunnel.ServerSession
	if kind == wire.KindDatagram {
		if udp = link.udpSessionNamed(r.URL.Query().Get(wire.CarrierParam)); udp == nil {
			http.Error(w, "the UDP session is not known", http.StatusNotFound)
			return
		}
		s.openPath(udp, r.TLS)
	}
	if !link.pool.reserve() {
		http.Error(w, "the tunnel client has as many data connections as it may", http.StatusServiceUnavailable)
		return
	}
	upgrader := &l.streams
	if kind == wire.KindDatagram {
		upgrader = &l.datagrams
	}
	l.upgrade(upgrader, w, r, link.pool.release, func(ws *websocket.Conn) {
		s.counters.handshakes.Add(1)
		s.counters.dataConnections.Add(1)
		defer s.counters.dataConnections.Add(-1)
		if udp != nil {
			link.serveDatagrams(ws, udp)
		} else {
			link.serveStreams(ws)
		}
	})
}

// openPath opens a UDP session's sealed path with the keys of a data connection.
func (s *Server) openPath(udp *udptunnel.ServerSession, state *tls.ConnectionState) {
	if state == nil {
		return
	}
	keys, err := seal.Export(state)
	if err != nil {
		s.log.Warn("no keys for sealed packets", slog.Any("error", err))
		return
	}
	udp.OpenPath(keys)
}

// speaks answers who does not speak this version of the protocol.
func speaks(w http.ResponseWriter, r *http.Request) bool {
	if slices.Contains(websocket.Subprotocols(r), wire.Subprotocol) {
		return true
	}
	http.Error(w, "this tunnel server speaks the WebSocket subprotocol "+wire.Subprotocol, http.StatusBadRequest)
	return false
}

func bearer(r *http.Request) string {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return token
}
