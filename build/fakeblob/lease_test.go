package fakeblob_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/lease"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
)

// leased is a blob and two who want its lease.
type leased struct {
	t     *testing.T
	blob  *blockblob.Client
	a, b  *lease.BlobClient
	etag  *azcore.ETag
	stale azcore.ETag
}

func newLeased(t *testing.T, connection string) *leased {
	t.Helper()
	client, err := azblob.NewClientFromConnectionString(connection, &azblob.ClientOptions{
		ClientOptions: azcore.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateContainer(context.Background(), "shared", nil); err != nil {
		t.Fatal(err)
	}
	l := &leased{t: t, blob: client.ServiceClient().NewContainerClient("shared").NewBlockBlobClient("shard-00")}
	l.a, l.b = l.client(), l.client()
	return l
}

func (l *leased) client() *lease.BlobClient {
	c, err := lease.NewBlobClient(l.blob, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// want checks the answer: "" for one that is well, otherwise its code.
func (l *leased) want(what string, err error, code string) {
	l.t.Helper()
	got := ""
	var answer *azcore.ResponseError
	if errors.As(err, &answer) {
		got = answer.ErrorCode
	} else if err != nil {
		got = err.Error()
	}
	if got != code {
		l.t.Errorf("%s: %q, want %q", what, got, code)
	}
}

func (l *leased) acquire(c *lease.BlobClient) error {
	_, err := c.AcquireLease(context.Background(), 15, nil)
	return err
}

func (l *leased) renew(c *lease.BlobClient) error {
	_, err := c.RenewLease(context.Background(), nil)
	return err
}

func (l *leased) release(c *lease.BlobClient) error {
	_, err := c.ReleaseLease(context.Background(), nil)
	return err
}

func (l *leased) breakIt(period int32) error {
	_, err := l.b.BreakLease(context.Background(), &lease.BlobBreakOptions{BreakPeriod: &period})
	return err
}

// write writes the blob with the lease of c, nil for none, if it is as etag says.
func (l *leased) write(c *lease.BlobClient, etag *azcore.ETag, none *azcore.ETag) error {
	conditions := &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: etag, IfNoneMatch: none}}
	if c != nil {
		conditions.LeaseAccessConditions = &blob.LeaseAccessConditions{LeaseID: c.LeaseID()}
	}
	owner := "a"
	r, err := l.blob.Upload(context.Background(), streamOf("positions"), &blockblob.UploadOptions{AccessConditions: conditions, Metadata: map[string]*string{"owner": &owner}})
	if err == nil {
		if l.etag != nil {
			l.stale = *l.etag
		}
		l.etag = r.ETag
	}
	return err
}

// What does not need time to go by: the same of the fake and of Azurite.
func (l *leased) contract() {
	star := azcore.ETagAny
	l.want("acquire what is not there", l.acquire(l.a), "BlobNotFound")
	l.want("make it", l.write(nil, nil, &star), "")
	l.want("make it again", l.write(nil, nil, &star), "BlobAlreadyExists")
	l.want("acquire", l.acquire(l.a), "")
	l.want("acquire again", l.acquire(l.a), "")
	l.want("acquire, another", l.acquire(l.b), "LeaseAlreadyPresent")
	l.want("renew", l.renew(l.a), "")
	l.want("renew, another", l.renew(l.b), "LeaseIdMismatchWithLeaseOperation")
	l.want("release, another", l.release(l.b), "LeaseIdMismatchWithLeaseOperation")
	l.want("write", l.write(l.a, l.etag, nil), "")
	l.want("write over another version", l.write(l.a, &l.stale, nil), "ConditionNotMet")
	l.want("write, another", l.write(l.b, nil, nil), "LeaseIdMismatchWithBlobOperation")
	l.want("write without a lease", l.write(nil, nil, nil), "LeaseIdMissing")
	l.want("begin to break", l.breakIt(10), "")
	l.want("renew while it breaks", l.renew(l.a), "LeaseIsBrokenAndCannotBeRenewed")
	l.want("acquire while it breaks", l.acquire(l.b), "LeaseAlreadyPresent")
	l.want("write while it breaks", l.write(l.a, l.etag, nil), "")
	l.want("release while it breaks", l.release(l.a), "")
	l.want("acquire what was released", l.acquire(l.b), "")
	l.want("write with a lease of before", l.write(l.a, nil, nil), "LeaseIdMismatchWithBlobOperation")
	l.want("break at once", l.breakIt(0), "")
	l.want("renew what is broken", l.renew(l.b), "LeaseIsBrokenAndCannotBeRenewed")
	l.want("write what is broken", l.write(l.b, nil, nil), "LeaseNotPresentWithBlobOperation")
	l.want("acquire what is broken", l.acquire(l.a), "")
	_, err := l.blob.Delete(context.Background(), nil)
	l.want("delete without the lease", err, "LeaseIdMissing")
	l.want("release", l.release(l.a), "")
	l.want("write with a lease that is none", l.write(l.a, nil, nil), "LeaseNotPresentWithBlobOperation")
	_, err = l.blob.Delete(context.Background(), nil)
	l.want("delete", err, "")
}

func TestLeases(t *testing.T) {
	s, err := fakeblob.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l := newLeased(t, s.ConnectionString())
	l.contract()

	// A lease that nobody renews ends.
	const lasts = 300 * time.Millisecond
	s.SetLeases(lasts)
	l.want("make it", l.write(nil, nil, nil), "")
	begun := time.Now()
	l.want("acquire", l.acquire(l.a), "")
	for err := l.acquire(l.b); err != nil; err = l.acquire(l.b) {
		l.want("acquire, another", err, "LeaseAlreadyPresent")
		time.Sleep(10 * time.Millisecond)
	}
	if took := time.Since(begun); took < lasts {
		t.Errorf("another could acquire the lease after %v", took)
	}
	l.want("write, after it is another's", l.write(l.a, nil, nil), "LeaseIdMismatchWithBlobOperation")
	for s.LeaseState("shared", "shard-00") != "expired" {
		time.Sleep(10 * time.Millisecond)
	}
	l.want("write with a lease that has ended", l.write(l.b, nil, nil), "LeaseLost")
	l.want("renew a lease that has ended and is nobody else's", l.renew(l.b), "")
	s.BreakLease("shared", "shard-00")
	if state := s.LeaseState("shared", "shard-00"); state != "broken" {
		t.Errorf("the lease is %s, want broken", state)
	}
	r, err := l.blob.GetProperties(t.Context(), nil)
	if err != nil || r.LeaseState == nil || *r.LeaseState != lease.StateTypeBroken || r.Metadata["Owner"] == nil || *r.Metadata["Owner"] != "a" {
		t.Errorf("properties: %v, lease %v, metadata %v", err, r.LeaseState, r.Metadata)
	}
}
