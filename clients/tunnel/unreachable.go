package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
)

// Windows has its own numbers for what POSIX calls ECONNREFUSED and ECONNRESET,
// and package syscall's constants of those names do not match them. No other
// system uses these numbers.
const (
	wsaConnReset   = syscall.Errno(10054)
	wsaConnRefused = syscall.Errno(10061)
)

// unreachable describes a failed request.
func unreachable(panel string, err error) *UnreachableError {
	// url.Error repeats the URL, which holds the device code of a poll.
	var ue *url.Error
	for errors.As(err, &ue) {
		err = ue.Err
	}
	reason, transient := explain(err)
	return &UnreachableError{Panel: panel, Reason: reason, Cause: err, transient: transient}
}

// explain returns the reason why a connection failed, for people, and whether the
// failure may be temporary.
func explain(err error) (reason string, transient bool) {
	if reason := explainTLS(err); reason != "" {
		return reason, false
	}
	var dns *net.DNSError
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("there is no host named %q", dns.Name), false
	case errors.As(err, &dns):
		return fmt.Sprintf("DNS lookup of %q failed", dns.Name), true
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "the proxy in HTTPS_PROXY or HTTP_PROXY does not answer", true
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, wsaConnRefused):
		return "connection refused; nothing listens there", true
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "it did not answer in time", true
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, wsaConnReset), errors.Is(err, syscall.EPIPE),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it closed the connection before it answered", true
	default:
		return err.Error(), true
	}
}

func explainTLS(err error) string {
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &authority):
		return "its certificate is signed by an authority that this machine does not trust"
	case errors.As(err, &hostname):
		return "its certificate is for another name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired, or this machine's clock is wrong"
	case errors.As(err, &invalid):
		return "its certificate is not valid"
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		return "it does not speak HTTPS; use an http:// address if the panel has no certificate"
	default:
		return ""
	}
}
