// Package certificate keeps the panel's certificates. A [Keeper] gets and renews them by
// ACME (RFC 8555): any number of replicas share the account, the certificates and the
// pending challenges through the database; one of them asks, each of them can answer the
// authority, and all of them serve the result. [Files] reads an operator's files again when
// they change.
package certificate

import "time"

// every is how often certificates are read again, which another replica or another program
// may have renewed.
const every = 5 * time.Second

// Status is what is known of a certificate.
type Status struct {
	Name string // The domain, or the certificate's file.
	// NotAfter is when the certificate that is served ends; the zero Time if there is none.
	NotAfter time.Time
	// Failure says why the last attempt to get, renew or read it failed; empty if it did
	// not.
	Failure string
	// RetryAt is when the next attempt to get or renew it begins after a failure. It is the
	// zero Time where reading it has failed, which is tried all the time.
	RetryAt time.Time
}
