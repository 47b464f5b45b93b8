package fakeblob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/fluent-bit-defender/fluent-bit-defender/build/fakeblob"
)

// The SDK is what decides whether the fake speaks the protocol.
func TestSDKReadsTheFake(t *testing.T) {
	s, err := fakeblob.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := context.Background()
	client, err := azblob.NewClientFromConnectionString(s.ConnectionString(), &azblob.ClientOptions{
		ClientOptions: azcore.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateContainer(ctx, "c", nil); err != nil {
		t.Fatal(err)
	}
	cc := client.ServiceClient().NewContainerClient("c")
	names := []string{"a/<1>&.json", "a/x2.json", "b/y=1/3.json", "b/y=2/4.json", "top.json"}
	for _, name := range names {
		ab := cc.NewAppendBlobClient(name)
		if _, err := ab.Create(ctx, nil); err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"one\r\n", "two\r\n"} {
			if _, err := ab.AppendBlock(ctx, streamOf(part), nil); err != nil {
				t.Fatal(err)
			}
		}
	}

	s.SetPageSize(2)
	s.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		return &fakeblob.Fault{EmptyPage: r.Op == fakeblob.ListBlobs}
	})
	var listed []string
	pages := 0
	for p := cc.NewListBlobsFlatPager(nil); p.More(); pages++ {
		page, err := p.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range page.Segment.BlobItems {
			listed = append(listed, *item.Name)
			if *item.Properties.ContentLength != 10 || *item.Properties.BlobType != container.BlobTypeAppendBlob {
				t.Errorf("%s: %+v", *item.Name, item.Properties)
			}
		}
	}
	if strings.Join(listed, " ") != strings.Join(names, " ") || pages != 6 {
		t.Errorf("listed %q in %d pages, want 3 pages and 3 empty ones", listed, pages)
	}
	var folders []string
	for p := cc.NewListBlobsHierarchyPager("/", &container.ListBlobsHierarchyOptions{}); p.More(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range page.Segment.BlobPrefixes {
			folders = append(folders, *f.Name)
		}
	}
	if strings.Join(folders, " ") != "a/ b/" {
		t.Errorf("folders %q", folders)
	}

	got, err := cc.NewBlobClient(names[0]).DownloadStream(ctx, &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: 5, Count: 100}})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(got.Body)
	if err != nil || !bytes.Equal(body, []byte("two\r\n")) || *got.ContentRange != "bytes 5-9/10" {
		t.Errorf("read %q, %v, %s", body, err, *got.ContentRange)
	}
	old := azcore.ETag(`"0x1"`)
	for name, c := range map[string]struct {
		options blob.DownloadStreamOptions
		code    bloberror.Code
	}{
		"412": {blob.DownloadStreamOptions{AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: &old}}}, bloberror.ConditionNotMet},
		"416": {blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: 10}}, bloberror.InvalidRange},
	} {
		if _, err := cc.NewBlobClient(names[0]).DownloadStream(ctx, &c.options); !bloberror.HasCode(err, c.code) {
			t.Errorf("%s: %v", name, err)
		}
	}

	s.SetFault(func(r fakeblob.Request) *fakeblob.Fault {
		if r.Op == fakeblob.GetBlob {
			return &fakeblob.Fault{CutAfter: 3}
		}
		return &fakeblob.Fault{Status: 503, Code: "ServerBusy", RetryAfter: "7"}
	})
	got, err = cc.NewBlobClient(names[0]).DownloadStream(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err = io.ReadAll(got.Body); err == nil || string(body) != "one" {
		t.Errorf("cut read gave %q, %v", body, err)
	}
	var failed *azcore.ResponseError
	if _, err = cc.NewBlobClient(names[0]).GetProperties(ctx, nil); !errors.As(err, &failed) || failed.StatusCode != 503 || failed.RawResponse.Header.Get("Retry-After") != "7" {
		t.Errorf("throttled: %v", err)
	}
}

type noClose struct{ *bytes.Reader }

func (noClose) Close() error { return nil }

func streamOf(text string) io.ReadSeekCloser { return noClose{bytes.NewReader([]byte(text))} }
