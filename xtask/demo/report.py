"""What an agent does with AWS: the SDK as it is, with whatever credential its environment holds.
The argument is where the demo's stand-in for AWS listens; with AWS itself there is none."""

import sys

import boto3
import botocore.exceptions

endpoint = sys.argv[1]
print("I am", boto3.client("sts", endpoint_url=endpoint).get_caller_identity()["Arn"])
s3 = boto3.client("s3", endpoint_url=endpoint)
report = s3.get_object(Bucket="reports", Key="2026-q3.csv")["Body"].read().decode()
print("I read 2026-q3.csv:", ", ".join(report.split()))
try:
    s3.put_object(Bucket="reports", Key="2026-q3.csv", Body=b"")
except botocore.exceptions.ClientError as error:
    print("I may not write:", error.response["Error"]["Code"])
